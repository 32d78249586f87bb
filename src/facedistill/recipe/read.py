"""Reading recipes: files, shipped ones, plain dicts, `key=value` overrides; and writing them out."""

import copy
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from facedistill.errors import UsageError, closest
from facedistill.recipe.dialect import MOST_CHARACTERS, _Dumper, parse_value, read_yaml
from facedistill.recipe.schema import GROUPS, Hallucination, Recipe, Search, TeacherSpec, TermSpec


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("facedistill") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a shipped one by its name, and apply `key.key=value` overrides.

    Raises:
        UsageError: no such recipe, not YAML, an unknown key (the nearest one is suggested) or an ill-typed value.
    """
    file = Path(path)
    if file.is_file():
        try:
            with open(file, encoding="utf-8") as opened:
                text = opened.read(MOST_CHARACTERS + 1)
        except (OSError, ValueError) as e:
            raise UsageError(f"recipe '{path}' cannot be read: {e}; expected a text file") from e
    elif path in shipped_recipes():
        text = (resources.files("facedistill") / "recipes" / f"{path}.yaml").read_text(encoding="utf-8")
    else:
        raise UsageError(
            f"recipe '{path}': no such file and no shipped recipe of that name{closest(path, shipped_recipes())}; "
            "`facedistill list recipes` shows them"
        )
    return parse_recipe(text, overrides, where=f"recipe '{path}'")


def parse_recipe(text: str, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Return the recipe that a YAML text holds, see `load_recipe`."""
    try:
        raw = read_yaml(text)
    except ValueError as e:
        raise UsageError(f"{where} is not YAML: {e}") from e
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: expected keys such as data, student, method; found {type(raw).__name__}")
    return make_recipe(raw, overrides, where=where)


def make_recipe(raw: dict[str, Any], overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Validate a recipe given as plain dicts, with shorthands and overrides. Raises UsageError."""
    raw = _expand(raw)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"'{override}': expected key=value, e.g. schedule.epochs=20")
        _set(raw, key.split("."), parse_value(value))
        raw = _expand(raw)
    try:
        return TypeAdapter(Recipe).validate_python(_nest_options(raw))
    except ValidationError as e:
        raise UsageError(f"{where}: {_first_error(e)}") from e


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every value written out; `load_recipe` reads it back to an equal one."""
    raw = asdict(recipe)
    for term in raw["method"]["terms"].values():
        term.update(term.pop("options"))
    _leave_out(recipe, raw)
    return yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _leave_out(part: Any, raw: dict[str, Any]) -> None:
    """Remove keys that came later and have no effect as they are, so that files and runs of before stay the same."""
    for f in fields(part):
        value = getattr(part, f.name)
        usual = f.default_factory() if f.default_factory is not MISSING else f.default
        if not f.repr and value == usual:
            raw.pop(f.name, None)
        elif is_dataclass(value):
            _leave_out(value, raw[f.name])


def _expand(raw: dict[str, Any]) -> dict[str, Any]:
    """Expand shorthands: `method: name`; `teacher: path` for one teacher; `data: path`; a group with nothing in it."""
    raw = {k: {} if v is None and k in GROUPS else v for k, v in copy.deepcopy(raw).items()}
    if isinstance(raw.get("method"), str):
        raw["method"] = {"name": raw["method"]}
    if isinstance(raw.get("data"), str | int | list):
        raw["data"] = {"train": raw["data"]}
    if isinstance(raw.get("student"), str):
        raw["student"] = {"backbone": raw["student"]}
    teachers = raw.get("teachers")
    teachers = {} if teachers is None else teachers
    if not isinstance(teachers, dict):
        return raw
    if "teacher" in raw:
        given, known = raw.pop("teacher"), teachers.get("teacher")
        both = isinstance(given, dict) and isinstance(known, dict)
        teachers["teacher"] = known | given if both else given  # `teacher.cache=false` leaves the model as it is
    method = raw.get("method")
    if isinstance(method, dict) and isinstance(terms := method.get("terms"), dict):
        method["terms"] = {name: {"weight": t} if isinstance(t, int | float) else t for name, t in terms.items()}
    raw["teachers"] = {name: {"model": t} if isinstance(t, str | int) else t for name, t in teachers.items()}
    return raw


def _nest_options(raw: dict[str, Any]) -> dict[str, Any]:
    method = raw.get("method")
    terms = method.get("terms") if isinstance(method, dict) else None
    if not isinstance(terms, dict):
        return raw
    own = {f.name for f in fields(TermSpec)}
    for name, term in terms.items():
        if term is None:
            term = {}
        if isinstance(term, dict) and "options" not in term:
            terms[name] = {k: v for k, v in term.items() if k in own}
            terms[name]["options"] = {k: v for k, v in term.items() if k not in own}
    return raw


# `data=photos` is short for `data.train=photos`. "*" is any name.
SHORT = {
    ("data",): "train",
    ("student",): "backbone",
    ("method",): "name",
    ("teacher",): "model",
    ("teachers", "*"): "model",
    ("method", "terms", "*"): "weight",
}


def _set(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set one key. A single value for a group is that of the group's main key; the others stay as they are."""
    if value is not None and not isinstance(value, dict):
        group = tuple(keys) if tuple(keys) in SHORT else (*keys[:-1], "*")
        keys = [*keys, SHORT[group]] if group in SHORT else keys
    for key in keys[:-1]:
        if raw.get(key) is None:
            raw[key] = {}
        raw = raw[key]
        if not isinstance(raw, dict):
            raise UsageError(f"{'.'.join(keys)}: '{key}' is a value, not a group of keys")
    raw[keys[-1]] = value


def _first_error(error: ValidationError) -> str:
    found = error.errors()
    if found[0]["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        place = [str(p) for p in found[0]["loc"]]
        known = [f.name for f in fields(_group(place[:-1]))]
        return f"unknown key '{'.'.join(place)}'{closest(place[-1], known)}; known here: {', '.join(known)}"
    # A value of one of several types has an error for each, whose place names the type in brackets. The deepest tells
    # most, as of an entry of a list.
    places = [[str(p) for p in e["loc"] if "[" not in str(p)] for e in found]
    same = [i for i, place in enumerate(places) if place[: len(places[0])] == places[0]]
    deepest = max((places[i] for i in same), key=len)
    first, *others = (found[i] for i in same if places[i] == deepest)
    messages = dict.fromkeys(e["msg"] for e in (first, *others))
    hint = "; expected {name: value}" if first["type"] in ("dict_type", "dataclass_type") else ""
    if first["type"] == "string_type" and isinstance(first["input"], float):
        hint = "; quotes make a word of it"
    return f"{'.'.join(deepest)}: {', or: '.join(messages)}, found {first['input']!r}{hint}"


def _group(place: list[str]) -> Any:
    """Return the dataclass at `place` in a recipe."""
    if place[:1] == ["teachers"]:
        return TeacherSpec
    if place[:2] == ["method", "terms"]:
        return TermSpec
    group: Any = Recipe(search=Search(), hallucination=Hallucination())
    for key in place:
        group = getattr(group, key)
    return group
