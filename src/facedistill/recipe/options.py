"""Options from a recipe for a class whose __init__ signature is their schema."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from facedistill.errors import UsageError, closest

T = TypeVar("T")


def build(kind: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Return kind(**options), each option brought to the type its parameter is annotated with.

    Raises UsageError for an unknown, ill-typed or missing option; `what` names the thing in the message.
    """
    parameters = inspect.signature(kind, eval_str=True).parameters
    for name in options:
        if name not in parameters:
            raise UsageError(
                f"{what} has no option '{name}'{closest(name, parameters)}; it has: {', '.join(parameters) or 'none'}"
            )
    for name, parameter in parameters.items():
        if name not in options and parameter.default is parameter.empty:
            raise UsageError(f"{what} needs the option '{name}'")
    values = {}
    for name, value in options.items():
        try:
            values[name] = TypeAdapter(_type(parameters[name])).validate_python(value)
        except ValidationError as e:
            raise UsageError(f"{what}: option '{name}': {e.errors()[0]['msg']}, found {value!r}") from e
    return kind(**values)


def _type(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation
