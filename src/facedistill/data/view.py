"""The interface of views: functions that change a batch's images before the networks see them."""

from collections.abc import Mapping
from typing import ClassVar

from facedistill.data.batch import Batch


class View:
    """A function Batch -> Batch on pixels. The signature of __init__ is the schema of its options in a recipe.

    Attributes:
        teacher_sees: words for a message that name the changed images of the teacher, e.g. "the mixed images". The
            teacher must then be a network and runs at every step, because the cache holds outputs of unchanged images.
            Empty if the teacher sees unchanged images.
        rules_out: the values of moved_by ("nothing", "gradient" or "teacher") that do not work with this view, each
            with the message that says why.
    """

    teacher_sees: str = ""
    rules_out: ClassVar[Mapping[str, str]] = {}

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the changed batch. It depends on the arguments alone, so a resumed run sees the same images."""
        raise NotImplementedError


class Same(View):
    """Both networks see unchanged images."""

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return batch
