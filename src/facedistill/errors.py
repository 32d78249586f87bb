"""Errors that a user can cause: one clear line, no traceback; and names as they are printed."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something given to the program is wrong. The message says what, where, what was expected and what to do.

    It is one line: control characters of any name in it are escaped.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(UserError):
    """The command or recipe itself is wrong (unknown key, wrong type, another run's folder)."""

    exit_code = 2


def closest(name: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the option nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


# Control characters, marks that turn the direction of text, line ends of Unicode, and bytes that are no text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(name: object) -> str:
    r"""Return a name, which may be any other person's, as it is printed: control characters escaped, as in \x1b."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(name))


def printable_lines(text: str) -> str:
    """Return a text of several lines with all other control characters escaped."""
    return "\n".join(map(printable, text.split("\n")))


def no_formula(name: str) -> str:
    """Return a name for a CSV so that a spreadsheet takes it for text, not for a formula to compute."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t") else name


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there more than once, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def some(names: Sequence[str]) -> str:
    """Return the first three names, and dots if there are more."""
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
