"""A browser without a window: where it is, and how it is run."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str:
    """The browser's program; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(NAMES)})")
    return found


def run_browser(browser: str, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([browser, *_fixed(profile), *arguments], capture_output=True, text=True, timeout=120)


def _fixed(profile: Path) -> list[str]:
    return ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={profile}"]


def download(browser: str, profile: Path, page: Path, name: str) -> Path:
    """Open a page from disk, wait until it has saved a file `name`, and return the file."""
    folder = profile / "downloads"
    settings = profile / "Default" / "Preferences"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"download": {"default_directory": str(folder), "prompt_for_download": False}}))
    with open(profile / "log", "wb") as log:
        process = subprocess.Popen([browser, *_fixed(profile), page.as_uri()], stdout=log, stderr=log)
        try:
            for _ in range(600):
                if (folder / name).exists():  # it gets its name when it is whole
                    return folder / name
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(30)
    raise AssertionError((profile / "log").read_text("utf-8", "replace")[-2000:])
