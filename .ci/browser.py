"""Put the browser page and its runtime into build/browser, and the runtime beside the page of the site if there is one.

onnxruntime-web comes from npm, in one version whose content is known by its SHA-512. It is not part of the repository.
`make browser` runs this. Without npm, one line says so, and nothing is made.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")  # CPU only
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "devices" / "browser"
BUILT = ROOT / "build" / "browser"
SITE = ROOT / "build" / "site" / "devices" / "browser"


def main() -> int:
    runtime = BUILT / "ort"
    mark = runtime / "package.txt"
    if not (mark.exists() and mark.read_text() == PACKAGE):
        npm = shutil.which("npm")
        if npm is None:
            print("browser: skipped, because npm is not on this machine. It comes with Node.js; then run it again.")
            return 0
        shutil.rmtree(runtime, ignore_errors=True)
        if fault := fetch(npm, runtime):
            print(f"browser: {fault}", file=sys.stderr)
            return 1
        mark.write_text(PACKAGE)
    for file in PAGE.iterdir():
        shutil.copyfile(file, BUILT / file.name)
    if SITE.is_dir():
        shutil.copytree(runtime, SITE / "ort", dirs_exist_ok=True)
    print(f"{BUILT.relative_to(ROOT)}: serve it with `python -m http.server -d build/browser`, open localhost:8000")
    return 0


def fetch(npm: str, folder: Path) -> str | None:
    """Write the runtime's files into `folder`; what went wrong, or None."""
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", PACKAGE, "--json", "--ignore-scripts", "--pack-destination", place]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or "no output").splitlines()[0]
            return f"npm cannot fetch {PACKAGE} ({last}); is there a network?"
        packed = Path(place) / json.loads(done.stdout)[0]["filename"]
        found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != SHA512:
            return f"{PACKAGE} has SHA-512 {found}; expected {SHA512}: it was changed, so it is not used"
        folder.mkdir(parents=True)
        with tarfile.open(packed) as archive:
            for name in FILES:
                source = archive.extractfile(f"package/{name}")
                assert source is not None
                (folder / Path(name).name).write_bytes(source.read())
    return None


if __name__ == "__main__":
    raise SystemExit(main())
