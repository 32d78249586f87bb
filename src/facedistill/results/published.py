"""Figures that a paper reports, as rows beside our own runs: shown and marked, never compared."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from facedistill.errors import UserError
from facedistill.evaluation import Figure, declaration

PLACE_KEYS = ("set", "protocol", "probe", "gallery")


def read_published(content: Mapping[str, Any], file: Path) -> tuple[str, dict[str, Any]]:
    """Return the row's name, which has the source, and its evaluation, whose results carry it as "published".

    Args:
        content: {"published": source, "method", "results": [{"set", "protocol", "probe", "gallery", figures}]}, and
            optionally "about", a text. A figure is a plain fraction: {"accuracy": 0.99}, {"tar_at_far": {"1e-4": 0.9}}.

    Raises:
        UserError: one of these is missing or malformed.
    """
    for key in ("published", "method"):
        if not isinstance(content.get(key), str):
            raise UserError(f"{file}: published figures need a text '{key}', which names the row")
    name = f"{content['method']} (published: {content['published']})"
    about = {key: content[key] for key in ("schema", "method", "published", "about") if key in content}
    results = [_checked(result, file) | {"settings": {}, "published": name} for result in content["results"]]
    return name, about | {"models": {}, "results": results}


def _checked(result: Any, file: Path) -> dict[str, Any]:
    named = isinstance(result, dict) and all(isinstance(result.get(key), str) for key in PLACE_KEYS)
    try:
        says = declaration(result) if named else declaration()
    except ValidationError as e:
        raise UserError(f"{file}: the published result {result} declares no figures: {e.errors()[0]['msg']}") from e
    given = result.keys() - {*PLACE_KEYS, "declared"} if named else set()
    if not given or any(says.figure(key) is None for key in given):
        known = f"{', '.join(PLACE_KEYS)} and figures, of {', '.join(figure.key for figure in says.figures)}"
        raise UserError(f"{file}: the published result {result} is not understood; expected {known}")
    for figure in says.figures:
        if figure.key in given:
            _require_numbers(figure, result[figure.key], file)
    return result


def _require_numbers(figure: Figure, found: Any, file: Path) -> None:
    values = found if figure.family else {"1": found}
    known, what = (_is_fraction, "fractions from 0 to 1") if figure.unit == "%" else (_is_number, "numbers")
    if not isinstance(values, dict) or not all(_is_rate(of) and known(value) for of, value in values.items()):
        example = '{"1e-3": 0.92}' if figure.family else "0.92"
        raise UserError(f"{file}: published {figure.key} {found}: expected {what}, e.g. {example}")


def _is_rate(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text) is not None


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
