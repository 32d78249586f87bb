"""The page in a real browser, on a phone and on a desk: no complaints, no sideways scrolling, the numbers in place."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("matplotlib", reason="the report needs matplotlib")
pytest.importorskip("jinja2", reason="the report needs jinja2")

from facedistill.results import write_comparison, write_report
from headless import find_browser, run_browser
from report_example import brief, log

WIDTHS = {"phone": 390, "desk": 1280}
# The page stands in a frame of each width, because no window is as narrow as a phone. What is measured is in the DOM.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body>
{frames}
<pre id="measured"></pre>
<script>
addEventListener("load", () => {{
  const measured = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, view = frame.contentWindow;
    const clipped = (e) => {{
      for (let up = e.parentElement; up; up = up.parentElement)
        if (["auto", "hidden"].includes(view.getComputedStyle(up).overflowX)) return true;
      return false;
    }};
    const wide = [...page.body.querySelectorAll("*")].filter(
      (e) => e.getBoundingClientRect().right > view.innerWidth + 0.5 && !clipped(e) && !e.closest("svg"));
    const cells = {{}};
    for (const table of page.querySelectorAll("table")) {{
      const title = table.closest("section").querySelector("h2").innerText + " / " + table.getAttribute("aria-label");
      cells[title] = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    }}
    page.querySelector("details").open = true;
    measured[frame.id] = {{
      scroll: page.documentElement.scrollWidth, inner: view.innerWidth,
      wide: wide.map((e) => e.outerHTML.slice(0, 200)),
      cells, drawn: [...page.querySelectorAll("svg")].map((e) => e.getBoundingClientRect().width),
      inside: [...page.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).length,
      opened: page.querySelector("details table").getBoundingClientRect().height,
      paper: view.getComputedStyle(page.documentElement).backgroundColor,
      line: view.getComputedStyle(page.querySelector("figure svg path[style*='--series']")).stroke,
      label: parseFloat(view.getComputedStyle(page.querySelector("figure svg text")).fontSize)
        * page.querySelector("figure svg").getBoundingClientRect().width / 400,
    }};
  }}
  document.getElementById("measured").textContent = JSON.stringify(measured);
}});
</script>"""


class Seen(NamedTuple):
    """What the browser measured, by width, and what its console said."""

    measured: dict[str, Any]
    console: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


def look(browser: str, page: Path, folder: Path, dark: bool = False) -> Seen:
    source = html.escape(page.read_text("utf-8"), quote=True)
    frames = "\n".join(
        f'<iframe id="{name}" style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>'
        for name, width in WIDTHS.items()
    )
    harness = folder / f"harness-{page.stem}-{dark}.html"
    harness.write_text(HARNESS.format(frames=frames), "utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = run_browser(browser, folder / "profile", scheme, "--dump-dom", harness.as_uri())
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return Seen(json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    write_report(brief(), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def seen(browser: str, report: Path, folder: Path) -> Seen:
    return look(browser, report, folder)


@pytest.fixture(scope="module")
def compared(browser: str, folder: Path) -> Seen:
    runs = {f"a_run_with_a_long_name_that_says_what_was_set_lr0.3_margin0.2_{n}": brief(0.03 * n) for n in range(2)}
    write_comparison(runs, folder / "compare.html", logs={run: log(1) for run in runs})
    return look(browser, folder / "compare.html", folder)


@pytest.mark.parametrize("name", ["seen", "compared"])
def test_the_console_is_silent(name: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(name).console == []


def test_the_console_would_speak(browser: str, folder: Path) -> None:
    """The test above can fail: a script that the page's policy forbids is reported."""
    page = folder / "broken.html"
    text = (folder / "report.html").read_text("utf-8")
    page.write_text(text.replace("</main>", "</main><script>1</script>"), "utf-8")
    assert any("Content Security Policy" in line for line in look(browser, page, folder).console)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["seen", "compared"])
def test_only_tables_scroll_sideways(name: str, width: str, request: pytest.FixtureRequest) -> None:
    there = request.getfixturevalue(name).measured[width]
    assert there["inner"] == WIDTHS[width]
    assert there["scroll"] <= there["inner"]
    assert there["wide"] == []
    if width == "phone":
        assert there["inside"] > 0, "the wide ones inside their own box"


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_hold_the_numbers(seen: Seen, width: str) -> None:
    header, *rows = seen.measured[width]["cells"]["lfw, all-pairs / Results"]
    results = brief()["results"]
    assert len(rows) == len(results)
    for row, r in zip(rows, results):
        cells = dict(zip(header, row))
        for far, at in r["tar_at_far"].items():
            low, high = (f"{100 * end:.2f}" for end in at["ci95"])
            star = "*" if at["impostors"] < 20 else ""
            assert cells[f"TAR at FAR {far}"] == f"{100 * at['value']:.2f}{star}[{low}, {high}]"


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_fit_and_can_be_read(seen: Seen, width: str) -> None:
    there = seen.measured[width]
    assert there["drawn"]
    assert all(300 < drawn <= WIDTHS[width] for drawn in there["drawn"])
    assert there["label"] >= 8.5, "px"
    assert there["opened"] > 20, "details open without a script"


def test_dark(browser: str, report: Path, folder: Path, seen: Seen) -> None:
    dark = look(browser, report, folder, dark=True).measured["desk"]
    light = seen.measured["desk"]
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    assert light["line"] != dark["line"], "plots follow"


def test_on_paper(browser: str, report: Path, folder: Path) -> None:
    paper = folder / "paper.pdf"
    done = run_browser(
        browser, folder / "profile", "--no-pdf-header-footer", f"--print-to-pdf={paper}", report.as_uri()
    )
    assert paper.exists(), done.stderr[-2000:]
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 2 <= pages <= 30
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", "-layout", paper, "-"], capture_output=True, text=True).stdout
        assert "Settings, all-pairs" in text, "what is folded on a screen is open on paper"
        assert "929d4d9b5fe2a67c" in text
        assert "Evaluation JSON" not in text


def test_a_screenshot_is_not_blank(browser: str, report: Path, folder: Path) -> None:
    from PIL import Image

    run_browser(
        browser, folder / "profile", "--window-size=1280,1500", f"--screenshot={folder / 'shot.png'}", report.as_uri()
    )
    image = Image.open(folder / "shot.png").convert("RGB")
    assert image.size == (1280, 1500)
    assert len(image.getcolors(1280 * 1500) or []) > 50
