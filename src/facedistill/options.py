"""Options from a recipe for a class whose __init__ signature is their schema."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from facedistill.errors import UsageError, closest

T = TypeVar("T")


def build(kind: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Return kind(**options), each option brought to the type its parameter is annotated with.

    Raises UsageError for an unknown, ill-typed or missing option; `what` names the thing in the message.
    """
    parameters = inspect.signature(kind).parameters
    for name in options:
        if name not in parameters:
            raise UsageError(
                f"{what} has no option '{name}'{closest(name, parameters)}; it has: {', '.join(parameters) or 'none'}"
            )
    for name, parameter in parameters.items():
        if name not in options and parameter.default is parameter.empty:
            raise UsageError(f"{what} needs the option '{name}'")
    hints = get_type_hints(kind.__init__ if isinstance(kind, type) else kind)
    values = {}
    for name, value in options.items():
        try:
            values[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as e:
            raise UsageError(f"{what}: option '{name}': {e.errors()[0]['msg']}, found {value!r}") from e
    return kind(**values)
