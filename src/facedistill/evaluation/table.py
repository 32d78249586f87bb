"""The evaluation JSON as plain Markdown tables, for the terminal and for documents."""

from collections.abc import Sequence
from typing import Any

FEW_IMPOSTORS = 20


def render_table(result: dict[str, Any]) -> str:
    """Return the models, then for each set and protocol its results and the rates at the gallery's own thresholds.

    Rates are in percent, with 95% intervals. A TAR whose FAR is decided by fewer than 20 impostor pairs carries a
    star. Missing values are empty cells.
    """
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in result["results"]:
        blocks.setdefault((entry["set"], entry["protocol"]), []).append(entry)
    parts = [_models(result["models"])]
    for (name, protocol), entries in blocks.items():
        one = entries[0]
        sizes = f"{one['images']:,} images, {one['pairs']:,} pairs, {one['genuine']:,} of them genuine"
        parts.append(f"{name}, {protocol} ({sizes}; flip {one['settings']['flip']}), in %:\n\n{_results(entries)}")
        if calibrated := _calibrated(entries):
            parts.append(
                f"FAR and TAR at the threshold that gives the gallery's own model this FAR, in %:\n\n{calibrated}"
            )
    if any(t["impostors"] < FEW_IMPOSTORS for entry in result["results"] for t in entry["tar_at_far"].values()):
        parts.append(f"*: fewer than {FEW_IMPOSTORS} impostor pairs decide the threshold\n")
    return "\n".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; empty columns and a table without rows vanish."""
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[header[i] for i in used], *([row[i] for i in used] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(used))]
    lines.insert(1, ["-" * width for width in widths])
    text = "".join(f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths))} |\n" for line in lines)
    return text if rows else ""


def _models(models: dict[str, Any]) -> str:
    rows = [
        [name, str(model.get("path", "")), _millions(model.get("parameters")), _millions(model.get("macs"))]
        for name, model in models.items()
    ]
    return markdown(["model", "path", "parameters", "MACs"], rows)


def _results(results: list[dict[str, Any]]) -> str:
    fars = _fars([r["tar_at_far"] for r in results])
    header = ["probe", "gallery", "accuracy", *(f"TAR at FAR {far}" for far in fars), "EER", "AUC", "cosine"]
    rows = []
    for r in results:
        accuracy = f"{_percent(r['accuracy'])}{_interval(r.get('ci95'))}" if "accuracy" in r else ""
        tars = [_tar(r["tar_at_far"][far]) if far in r["tar_at_far"] else "" for far in fars]
        last = [_percent(r.get("eer")), _percent(r.get("auc"), 3), _cosine(r)]
        rows.append([r["probe"], r["gallery"], accuracy, *tars, *last])
    return markdown(header, rows)


def _calibrated(results: list[dict[str, Any]]) -> str:
    crossed = [r for r in results if "at_gallery_threshold" in r]
    fars = _fars([r["at_gallery_threshold"] for r in crossed])
    rows = [[r["probe"], r["gallery"], *(_rates(r["at_gallery_threshold"].get(far)) for far in fars)] for r in crossed]
    return markdown(["probe", "gallery", *fars], rows)


def _fars(tables: list[dict[str, Any]]) -> list[str]:
    return sorted({far for table in tables for far in table}, key=float, reverse=True)


def _tar(entry: dict[str, Any]) -> str:
    star = "*" if entry["impostors"] < FEW_IMPOSTORS else ""
    return f"{_percent(entry['value'])}{star}{_interval(entry.get('ci95'))}"


def _rates(at: dict[str, float] | None) -> str:
    return "" if at is None else f"FAR {_percent(at['far'], 4)}, TAR {_percent(at['tar'])}"


def _cosine(result: dict[str, Any]) -> str:
    cosine = result.get("mean_cosine", {})
    ceiling = f" of {cosine['ceiling']:.3f}" if "ceiling" in cosine else ""
    return f"{cosine['value']:.3f}{ceiling}" if cosine else ""


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _interval(ci95: list[float] | None) -> str:
    return "" if ci95 is None else f" [{_percent(ci95[0])}, {_percent(ci95[1])}]"


def _millions(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.2f} M"
