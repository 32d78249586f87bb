"""Add the people of one gallery to another, in one transaction."""

from facedistill.errors import UserError
from facedistill.gallery.store import Gallery


def merge(into: Gallery, other: Gallery) -> tuple[int, int]:
    """Add all people, vectors and thresholds of `other` that `into` lacks; return the new vectors and people.

    People of the same name are one person. A vector of an image that the person already has by the same model adds
    nothing.

    Raises:
        UserError: the galleries are of different spaces or use mirror images differently, or are one file.
    """
    if into.id == other.id:
        raise UserError(f"{other.path}: is the same gallery as {into.path}, or a copy of it made by another program")
    for what in ("space", "dim", "flip"):
        if getattr(into, what) != getattr(other, what):
            raise UserError(
                f"{other.path}: is of {what} {getattr(other, what)}, and {into.path} of {getattr(into, what)}; "
                "galleries of one space can be merged: bring one to the other with `facedistill upgrade`"
            )
    added, people = 0, set(into.names())
    with into.writing(), other.reading():
        for name, made_by, sources, vectors in other.contents():
            added += into.add(name, vectors, made_by=made_by, sources=sources)
        for (probe, gallery), kept in other.thresholds.items():
            mine = {one.far for one in into.thresholds.get((probe, gallery), [])}
            for one in (one for one in kept if one.far not in mine):
                into.set_threshold(**one._asdict())
        new = set(into.names()) - people
    return added, len(new)
