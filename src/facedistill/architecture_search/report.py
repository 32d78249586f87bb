"""The page of a search: both cells, how sure their edges are, and the losses."""

from html import escape
from pathlib import Path

from facedistill.architecture_search.picture import draw, state_name
from facedistill.architecture_search.space import weights_of
from facedistill.backbones import OPERATIONS, Supernet
from facedistill.files import atomic_write
from facedistill.run import LOG, read_log

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2329 }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ padding: .2rem .6rem; text-align: right }}
th {{ border-bottom: 1px solid #bbb }} td:first-child, th:first-child {{ text-align: left; white-space: nowrap }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>{title}</h1>
{cells}
<h2>Weights of the operations</h2>
<p>The softmax of each edge. An edge whose weights are all near {even:.2f} was not decided.</p>
{weights}
<h2>Losses</h2>
{losses}
</html>
"""
LINES = 24  # of the log that are shown
NO_LOSS = {"step", "epoch", "lr", "gradient_norm", "images_per_second"}


def write_report(run: Path, network: Supernet) -> None:
    """Write report.html into the run."""
    pictures = draw(network.genotype())
    page = PAGE.format(
        title=f"Architecture search: {escape(run.name)}",
        cells="".join(pictures.values()),
        even=1 / (len(OPERATIONS) + 1),
        weights="".join(_weights(network, kind) for kind in pictures),
        losses=_losses(run),
    )
    with atomic_write(run / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _weights(network: Supernet, kind: str) -> str:
    rows = []
    for node, edges in enumerate(weights_of(network)[kind], 1):
        for state, weights in enumerate(edges):
            rows.append([f"{state_name(state)} to node {node}", *(f"{w:.3f}" for w in weights)])
    return f"<h3>{kind.capitalize()}</h3>" + _table(["edge", *OPERATIONS, "none"], rows)


def _losses(run: Path) -> str:
    log = read_log(run / LOG)
    log = log[:: max(1, -(-len(log) // LINES))]
    names = sorted({name for row in log for name in row} - NO_LOSS)
    return _table(["step", *names], [[str(row["step"]), *(_number(row.get(name)) for name in names)] for row in log])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = lambda tag, row: "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row)  # noqa: E731
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', head)}</tr>{body}</table>"
