"""The code on the pages for devices crops as `align` does: JavaScript in a browser, C++ compiled, Python run.

Kotlin and Swift have no compiler here. Their code follows the same formulas.
"""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedistill.data.align import TEMPLATE, align
from headless import find_browser, run_browser

DEVICES = Path(__file__).parents[1] / "docs" / "devices"
POINTS = np.array([[71.3, 60.9], [117.8, 71.2], [89.6, 99.1], [62.5, 117.4], [100.9, 126.2]]) + 45  # turned
SIZES = (64, 112)
PAGE = """<!DOCTYPE html><meta charset="utf-8"><script>PAGE_CODE</script>
<body><img src="PHOTO" alt=""><pre id="made"></pre><script>
addEventListener("load", () => {
  const made = {};
  for (const size of SIZES) made[size] = [...crop(document.querySelector("img"), POINTS, size)];
  document.getElementById("made").textContent = JSON.stringify(made);
});
</script>"""
MAIN = """
#include <cstdio>
int main(int, char** names) {
  const float points[5][2] = POINTS;
  std::vector<std::uint8_t> photo(3 * 240 * 260);
  if (std::fread(photo.data(), 1, photo.size(), stdin) != photo.size()) return 1;
  for (int size : {64, 112}) {
    const auto planes = crop(photo.data(), 240, 260, points, size);
    std::fwrite(planes.data(), 1, planes.size(), stdout);
  }
}
"""


def code(page: str, language: str) -> list[str]:
    text = (DEVICES / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def photo() -> np.ndarray:
    """Smooth, so that two ways of interpolation differ little: 240 wide, 260 high, and the crop lies inside."""
    small = np.random.default_rng(0).integers(0, 256, (12, 11, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((240, 260), Image.Resampling.BICUBIC))


def check(found: np.ndarray, photo: np.ndarray, size: int, most: int) -> None:
    expected = align(photo, POINTS, size)
    difference = np.abs(found.astype(int) - expected)[1:-1, 1:-1]
    assert difference.max() <= most and difference.mean() < 0.8, (difference.max(), difference.mean())


def test_python(photo: np.ndarray) -> None:
    names: dict[str, Any] = {}
    exec(code("raspberry_pi.md", "python")[1], names)
    for size in SIZES:
        check(names["crop"](Image.fromarray(photo), POINTS, size), photo, size, most=2)


def test_cpp(photo: np.ndarray, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    points = "{" + ", ".join(f"{{{x}f, {y}f}}" for x, y in POINTS) + "}"
    (tmp_path / "crop.cpp").write_text(code("npu.md", "cpp")[0] + MAIN.replace("POINTS", points))
    program, source = str(tmp_path / "crop"), str(tmp_path / "crop.cpp")
    command = [compiler, "-std=c++17", "-Wall", "-Werror", "-O1", "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = subprocess.run([program], input=photo.tobytes(), capture_output=True, check=True).stdout
    for size in SIZES:
        planes = np.frombuffer(out[: 3 * size**2], np.uint8).reshape(3, size, size)
        check(planes.transpose(1, 2, 0), photo, size, most=1)
        out = out[3 * size**2 :]


def test_javascript(photo: np.ndarray, tmp_path: Path) -> None:
    browser = find_browser()
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "png")
    text = PAGE.replace("PAGE_CODE", code("browser.md", "js")[0]).replace("SIZES", json.dumps(SIZES))
    text = text.replace("POINTS", json.dumps(POINTS.tolist()))
    text = text.replace("PHOTO", "data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    (tmp_path / "page.html").write_text(text, "utf-8")
    page = (tmp_path / "page.html").as_uri()
    done = run_browser(browser, tmp_path / "profile", "--dump-dom", page)
    made = re.search(r'<pre id="made">(.+?)</pre>', done.stdout, re.DOTALL)
    assert made, done.stderr[-2000:]
    for size, values in json.loads(made[1]).items():
        rgba = np.array(values, np.uint8).reshape(int(size), int(size), 4)
        check(rgba[..., :3], photo, int(size), most=4)


@pytest.mark.parametrize("page", ["android.md", "ios.md", "browser.md", "raspberry_pi.md", "npu.md"])
def test_every_page_has_the_template_and_the_contract(page: str) -> None:
    text = (DEVICES / page).read_text("utf-8")
    assert all(f"{value}" in text for value in TEMPLATE.ravel())
    assert "RGB 0..255" in text and "Nothing is normalised here" in text
    assert "facedistill export run --to onnx" in text and "flip` is `none`" in text.replace("\n", " ")
    assert "BGR" in text or page == "browser.md"
