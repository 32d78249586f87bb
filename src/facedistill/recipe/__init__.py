"""The recipe: one typed YAML file with everything a run needs."""

from facedistill.recipe.dialect import parse_value
from facedistill.recipe.options import build, find
from facedistill.recipe.read import dump_recipe, load_recipe, make_recipe, parse_recipe, shipped_recipes
from facedistill.recipe.schema import (
    ClassifierSpec,
    Count,
    Data,
    MethodSpec,
    MovedBy,
    Positive,
    Rate,
    Recipe,
    SamplerSpec,
    Schedule,
    Search,
    Share,
    Stored,
    TeacherEpoch,
    TeacherSpec,
    TermSpec,
    ViewSpec,
)

__all__ = [
    "ClassifierSpec",
    "Count",
    "Data",
    "MethodSpec",
    "MovedBy",
    "Positive",
    "Rate",
    "Recipe",
    "SamplerSpec",
    "Schedule",
    "Search",
    "Share",
    "Stored",
    "TeacherEpoch",
    "TeacherSpec",
    "TermSpec",
    "ViewSpec",
    "build",
    "dump_recipe",
    "find",
    "load_recipe",
    "make_recipe",
    "parse_recipe",
    "parse_value",
    "shipped_recipes",
]
