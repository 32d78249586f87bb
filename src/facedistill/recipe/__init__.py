"""The recipe: one typed YAML file with everything a run needs."""

from facedistill.recipe.dialect import parse_value
from facedistill.recipe.options import build, find
from facedistill.recipe.read import dump_recipe, load_recipe, make_recipe, shipped_recipes
from facedistill.recipe.schema import (
    ClassifierSpec,
    Count,
    Data,
    MethodSpec,
    Positive,
    Recipe,
    Sampler,
    Schedule,
    Share,
    TeacherSpec,
    TermSpec,
    View,
)

__all__ = [
    "ClassifierSpec",
    "Count",
    "Data",
    "MethodSpec",
    "Positive",
    "Recipe",
    "Sampler",
    "Schedule",
    "Share",
    "TeacherSpec",
    "TermSpec",
    "View",
    "build",
    "dump_recipe",
    "find",
    "load_recipe",
    "make_recipe",
    "parse_value",
    "shipped_recipes",
]
