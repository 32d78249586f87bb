"""The names of people: any text, in one form, stored as bytes."""

from facedistill.errors import UserError
from facedistill.files import composed

LONGEST = 1000  # letters; a longer text is no name but, say, a file's content


def stored_name(name: str) -> bytes:
    """Return a name as it is stored: `composed`, in UTF-8; bytes that are no text stay as they are.

    Raises UserError for a name that is empty or too long.
    """
    if not name.strip():
        raise UserError("gallery: an empty name; expected a person's name")
    if len(name) > LONGEST:
        raise UserError(f"gallery: a name of {len(name):,} letters ({name[:40]!a}...); expected at most {LONGEST:,}")
    try:
        return composed(name).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as e:
        raise UserError(f"gallery: the name {name[:60]!a} is no text ({e.reason}); rename the person") from e


def read_name(stored: bytes) -> str:
    """Return the name that was stored."""
    return stored.decode("utf-8", "surrogateescape")
