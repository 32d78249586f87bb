"""The student that a search is for: the network of its cells, trained by the same recipe."""

from dataclasses import replace
from pathlib import Path

from facedistill.architecture_search.loop import GENOTYPE, search
from facedistill.backbones import create_backbone
from facedistill.recipe import Recipe
from facedistill.training import train

STUDENT = "student"


def search_and_train(recipe: Recipe, out: str | Path) -> Path:
    """Search as `search` does, then train the network of the cells in `out`/student, and return that run.

    The network is the recipe's student with `backbone: genotype` and the found cells; its options `channels` and
    `depth` are those of the trained network, not of the supernet. Both parts resume.

    Raises: as `search` and `train`; options that the network does not have are refused before the search.
    """
    student = replace(recipe.student, backbone="genotype")
    trial = student.options | {"file": "pocketnet"}
    create_backbone("genotype", student.embedding_dim or 1, student.input_size, **trial)
    run = search(recipe, out)
    student = replace(student, options=student.options | {"file": str(run / GENOTYPE)})
    return train(replace(recipe, student=student, search=None), run / STUDENT)
