"""Figures that a paper reports, as rows beside our own runs: shown and marked, never compared."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facedistill.errors import UserError
from facedistill.results.reading import METRICS

NAMES = ("set", "protocol", "probe", "gallery")


def read_published(content: Mapping[str, Any], file: Path) -> tuple[str, dict[str, Any]]:
    """The row's name, which says the source, and its evaluation, whose results carry that name as "published".

    Args:
        content: {"published": source, "method", "results": [{"set", "protocol", "probe", "gallery", figures}]}, and
            "about", a text, if there is more to say. A figure is a plain fraction: {"accuracy": 0.99},
            {"tar_at_far": {"1e-4": 0.9}}.

    Raises:
        UserError: one of these is missing or something else.
    """
    for key in ("published", "method"):
        if not isinstance(content.get(key), str):
            raise UserError(f"{file}: published figures need a text '{key}', which the row is called by")
    name = f"{content['method']} (published: {content['published']})"
    about = {key: content[key] for key in ("schema", "method", "published", "about") if key in content}
    results = [_checked(result, file) | {"settings": {}, "published": name} for result in content["results"]]
    return name, about | {"models": {}, "results": results}


def _checked(result: Any, file: Path) -> dict[str, Any]:
    figures = result.keys() - NAMES if isinstance(result, dict) else set()
    if not figures or not figures <= METRICS.keys() or not all(isinstance(result.get(key), str) for key in NAMES):
        known = f"{', '.join(NAMES)} and figures, of {', '.join(METRICS)}"
        raise UserError(f"{file}: the published result {result} is not understood; expected {known}")
    for key in sorted(figures):
        rates = "{}" in METRICS[key]
        given = result[key] if rates else {"1": result[key]}
        if not isinstance(given, dict) or not all(_is_rate(of) and _is_fraction(v) for of, v in given.items()):
            example = '{"1e-3": 0.92}' if rates else "0.92"
            raise UserError(f"{file}: published {key} {result[key]}: expected fractions from 0 to 1, e.g. {example}")
    return result


def _is_rate(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text) is not None


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
