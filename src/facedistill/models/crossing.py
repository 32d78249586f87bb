"""Students whose teacher did not tie them to its space: what that means, in the words that every place uses."""

from facedistill.models.model import Model

TIES = "proxylesskd, l2kd, margin_softmax_l2 and adadistill are some that do"
AT_CHANCE = (
    "student and teacher then match at chance (published: 0.1% mAP where methods that tie reach 66 to 69%, D3still's "
    "table of In-Shop, CVPR 2024; measured here: 0.0% TAR)"
)


def not_tied(method: str) -> str:
    """Return the words for a student that is trained by `method`, no term of which ties it to a teacher's space."""
    return (
        f"no term of {method} ties the student to its teacher's space: {AT_CHANCE}. It may be used with galleries of "
        f"its own; to search the teacher's, choose a method that ties it ({TIES})"
    )


def untied(model: Model, space: str | None) -> str:
    """Return why a model cannot be matched with embeddings of `space`, if a teacher of it trained it, else ""."""
    if space is None or model.space == space or space not in model.made.get("teachers", []):
        return ""
    return f"a model of that space was its teacher, but {not_tied(model.made.get('method', 'its method'))}"
