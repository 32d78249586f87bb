"""Errors that a user can cause: one clear line, no traceback."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something given to the program is wrong. The message says what, where, what was expected and what to do."""

    exit_code = 1


class UsageError(UserError):
    """The command or recipe itself is wrong (unknown key, wrong type, another run's folder)."""

    exit_code = 2


def closest(name: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the option nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def some(names: Sequence[str]) -> str:
    """Return the first three names, and dots if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
