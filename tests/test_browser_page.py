"""The page that runs an exported student: in a real browser it gives the cosine that Python gives."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from facedistill.backbones import create_backbone
from facedistill.models import Model
from headless import find_browser, run_browser

onnx = pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "devices" / "browser"
SIZE = 32
# The page stands in a frame. What it shows in the end goes to the server, which holds the frame's neighbour back until
# then, so that the browser stays.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><iframe src="PAGE" style="width:800px;height:900px"></iframe>
<script>
const timer = setInterval(() => {
  const body = document.querySelector("iframe").contentDocument?.body;
  if (!"FINAL".split(" ").includes(body?.dataset.state)) return;
  clearInterval(timer);
  const cells = (id) => [...body.querySelectorAll(`#${id} tr`)].map((row) => [...row.cells].map((c) => c.textContent));
  fetch("/seen", {method: "POST", body: JSON.stringify({
    ...body.dataset, status: body.querySelector("#status").textContent, notes: body.querySelector("#notes").innerText,
    shown: body.querySelector("#cosine").value, facts: Object.fromEntries(cells("facts")),
    thresholds: cells("thresholds"),
  })});
}, 20);
</script><img src="/held" alt="">"""


class Server(ThreadingHTTPServer):
    """Serves the page and the test's files on loopback, and receives what the page shows."""

    def __init__(self, page: Path, files: Path) -> None:
        self.page, self.files, self.harness = page, files, ""
        self.seen: dict[str, Any] = {}
        self.done = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        place = urlsplit(self.path).path
        if place == "/harness.html":
            self._answer(self.server.harness.encode(), "text/html")
        elif place == "/held":
            self.server.done.wait(90)
            self._answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"", "text/plain")
        self.server.done.set()

    def translate_path(self, path: str) -> str:
        place = urlsplit(path).path
        folder = self.server.files if place.startswith("/page/files/") else self.server.page
        return str(folder / place.removeprefix("/page/files/").removeprefix("/page/"))

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Seen(NamedTuple):
    page: dict[str, Any]
    console: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = Model(
        create_backbone("mobilefacenet", embedding_dim=16, input_size=SIZE, width=0.25), space="a space"
    ).eval()
    own = model.fingerprint()
    model.thresholds = [
        {"far": 1e-3, "value": -1.0, "probe": own, "gallery": own, "flip": "none"},
        {"far": 1e-4, "value": 1.0, "probe": own, "gallery": own, "flip": "none"},
        {"far": 1e-4, "value": 0.3, "probe": own, "gallery": own, "flip": "sum"},
        {"far": 1e-4, "value": 0.3, "probe": own, "gallery": "the teacher", "flip": "none"},
    ]
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops of the student's size, and one that is larger."""
    folder = tmp_path_factory.mktemp("page")
    noise = np.random.default_rng(0)
    for name, size in (("a", SIZE), ("b", SIZE), ("large", 3 * SIZE), ("wide", SIZE)):
        small = noise.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        shape = (size, size // 2) if name == "wide" else (size, size)
        Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    (folder / "text.onnx").write_text("this is no network")
    return folder


@pytest.fixture(scope="module")
def students(model: Model, files: Path) -> dict[str, Path]:
    """The student in the forms that a browser may meet."""
    from facedistill.export import export_model

    forms: dict[str, dict[str, Any]] = {
        "plain": {},
        "half": {"precision": "fp16", "layout": "nhwc", "pixels": "float32", "batch": 2, "normalise": False},
    }
    for name, options in forms.items():
        exported = export_model(model, "onnx", files / f"{name}.onnx", **options)
        assert exported.gate.passed, exported.gate.text()
    return {name: files / f"{name}.onnx" for name in forms}


@pytest.fixture(scope="module")
def built() -> Path:
    """The page with its runtime, as `make browser` builds it."""
    if shutil.which("npm") is None and not (ROOT / "build" / "browser" / "ort" / "package.txt").exists():
        pytest.skip("npm is not on this machine, so the page's runtime cannot be fetched")
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "browser.py")], capture_output=True, text=True)
    if "is there a network" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "browser"


@pytest.fixture
def serve(files: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(page: Path) -> Server:
        servers.append(Server(page, files))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.done.set()
        server.shutdown()
        server.server_close()


def look(browser: str, server: Server, profile: Path, final: str = "done failed", **named: str) -> Seen:
    query = urlencode({name: f"files/{file}" for name, file in named.items()})
    server.harness = HARNESS.replace("PAGE", f"/page/index.html?{query}").replace("FINAL", final)
    address = f"http://127.0.0.1:{server.server_port}/harness.html"
    done = run_browser(browser, profile / "profile", "--dump-dom", address)
    assert server.seen, done.stderr[-2000:]
    return Seen(server.seen, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def expected(model: Model, files: Path, first: str, second: str) -> float:
    crops = [np.asarray(Image.open(files / name).convert("RGB")) for name in (first, second)]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    a, b = model.embed(images, flip="none")
    return float(a @ b)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "half"])
def test_the_cosine_is_pythons(
    form: str, browser: str, built: Path, serve: Any, model: Model, files: Path, students: Any, tmp_path: Path
) -> None:
    seen = look(browser, serve(built), tmp_path, model=students[form].name, first="a.png", second="b.png")
    value = expected(model, files, "a.png", "b.png")
    assert seen.page["state"] == "done", seen.page
    assert float(seen.page["cosine"]) == pytest.approx(value, abs=1e-3)
    assert seen.page["shown"] == f"{float(seen.page['cosine']):.4f}"
    assert abs(value) < 0.99, "two crops whose cosine says something"
    assert [line for line in seen.console if "ERROR" in line or "Policy" in line or "Uncaught" in line] == []
    assert [row[-1] for row in seen.page["thresholds"]] == ["one person", "two people", *2 * ["does not apply"]]
    assert seen.page["notes"] == ""


@pytest.mark.slow
def test_a_crop_of_another_size_is_resized_and_said(
    browser: str, built: Path, serve: Any, students: Any, tmp_path: Path
) -> None:
    seen = look(browser, serve(built), tmp_path, model="plain.onnx", first="large.png", second="a.png")
    assert seen.page["state"] == "done"
    assert "first crop was resized from 96 to 32 pixels" in seen.page["notes"]


@pytest.mark.slow
def test_the_runtime_has_its_version(built: Path) -> None:
    package = re.search(r'^PACKAGE = "(.*)"$', (ROOT / ".ci" / "browser.py").read_text(), re.MULTILINE)
    assert package and (built / "ort" / "package.txt").read_text() == package[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"model": "text.onnx", "first": "a.png", "second": "b.png"}, "not an ONNX file|says nothing of itself"),
        (
            {"model": "plain.onnx", "first": "wide.png", "second": "b.png"},
            "first crop has 32 x 16 pixels; expected a square",
        ),
        ({"model": "plain.onnx", "first": "a.png", "second": "text.onnx"}, "second crop is not an image"),
        ({"model": "plain.onnx", "first": "absent.png", "second": "b.png"}, "absent.png: 404"),
    ],
)
def test_bad_input(
    named: dict[str, str], message: str, browser: str, built: Path, serve: Any, students: Any, tmp_path: Path
) -> None:
    seen = look(browser, serve(built), tmp_path, **named)
    assert seen.page["state"] == "failed"
    assert re.search(message, seen.page["status"]), seen.page["status"]


def test_the_facts_are_read_without_a_runtime(browser: str, serve: Any, files: Path, tmp_path: Path) -> None:
    """The page as it is committed: it reads the file's facts, and says how its runtime comes."""
    facts = {
        **{"input": {"size": 32}, "pixels": "float32", "layout": "nhwc", "batch": 2, "embedding_dim": 16},
        **{"normalise": False, "precision": "fp16", "space": "a space", "model": "ü", "licence": "", "thresholds": []},
    }
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    network = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(network, {"first": "x" * 300, "facedistill": json.dumps(facts, ensure_ascii=False)})
    onnx.save(network, str(files / "facts.onnx"))
    seen = look(browser, serve(SOURCE), tmp_path, model="facts.onnx", first="a.png", second="b.png")
    assert seen.page["state"] == "failed" and "make browser" in seen.page["status"]
    shown = seen.page["facts"]
    assert shown["input"] == "32 x 32, RGB 0..255, float32, nhwc, batch 2"
    assert shown["space"] == "a space" and shown["model"] == "ü"
    assert shown["embedding"] == "16 numbers" and shown["precision"] == "fp16"


def test_it_asks_for_what_is_missing(browser: str, serve: Any, tmp_path: Path) -> None:
    seen = look(browser, serve(SOURCE), tmp_path, final="waiting", first="a.png")
    assert seen.page["status"] == "Choose a student and a second crop."


def test_without_npm_nothing_is_made(tmp_path: Path) -> None:
    copy = tmp_path / ".ci" / "browser.py"
    copy.parent.mkdir()
    shutil.copyfile(ROOT / ".ci" / "browser.py", copy)
    done = subprocess.run([sys.executable, str(copy)], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0 and "npm is not on this machine" in done.stdout
    assert not (tmp_path / "build").exists()
