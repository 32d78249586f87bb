"""From a recipe to an object: find an entry of a registry by its name, and build it with its options.

A registry is a plain dict of classes. Where the name of an entry is expected, `package.module:Class` names a class
outside the package. The signature of a class's __init__ is the schema of its options.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from facedistill.errors import UsageError, closest

T = TypeVar("T")


def find(registry: Mapping[str, T], name: str, what: str, base: type | None = None) -> T:
    """Return the registry's entry `name`, or the class that `package.module:Class` names.

    The module is imported, which runs its code. The class is checked against `base` before anybody calls it.

    Args:
        what: the kind of thing in messages, e.g. "term".
        base: the class that an imported class must derive from.

    Raises:
        UsageError: the name is unknown, the import fails, or the class does not derive from `base`.
    """
    if name in registry:
        return registry[name]
    if ":" not in name:
        raise UsageError(
            f"{what} '{name}' is unknown{closest(name, registry)}; known: {', '.join(registry)}; "
            "`package.module:Class` names one of your own"
        )
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as e:  # a module may raise anything while it is imported
        raise UsageError(f"{what} '{name}' cannot be imported: {_why(e, module)}") from e
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(
            f"{what} '{name}' is no {base.__name__}; expected a subclass of {base.__module__}.{base.__name__}"
        )
    return found


def build(kind: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Return kind(**options), each option converted to the annotated type of its parameter.

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


def _why(error: Exception, module: str) -> str:
    """Return why `module` cannot be imported, and what to do if it is not found."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return f"{error}; install it, or put the folder that holds it on PYTHONPATH"
    plain = isinstance(error, ImportError | AttributeError)
    return str(error) if plain else f"{type(error).__name__}: {error}"


def _type(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation
