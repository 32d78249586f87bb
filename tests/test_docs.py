"""README and docs say what is so: Python runs, YAML is a recipe, commands parse, links lead somewhere."""

import json
import re
import shlex
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError

import facedistill
from facedistill.backbones import BACKBONES
from facedistill.cli.app import app
from facedistill.data.dataset import open_dataset
from facedistill.data.sources.folder import IMAGE_SUFFIXES
from facedistill.evaluation import evaluate
from facedistill.head.margins import MARGINS
from facedistill.methods import METHODS
from facedistill.models.folder import load_model
from facedistill.recipe.read import load_recipe
from facedistill.recipe.schema import Hallucination, Recipe, Search, TeacherSpec, TermSpec
from facedistill.terms import TERMS
from facedistill.training.sweep import combinations
from tiny_world import Tiny

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def title(path: Path) -> str:
    """The page's place below docs/, or its name at the top of the repository."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def page(name: str) -> str:
    return next(p for p in PAGES if title(p) == name).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCED.findall(text) if found == language]


def with_blocks(language: str) -> list[str]:
    return [title(p) for p in PAGES if blocks(p.read_text("utf-8"), language)]


def commands(text: str) -> list[str]:
    """Every `facedistill verb ...` in a block or a span of code; a heading may name a verb alone."""
    code = [body for language, body in FENCED.findall(text) if language not in ("python", "yaml", "json")]
    rest = re.sub(r"^#.*$", "", FENCED.sub("", text), flags=re.MULTILINE)
    code += re.findall(r"^ {4}(.*)$", rest, re.MULTILINE) + re.findall(r"`([^`\n]+)`", rest)
    lines = (line for part in code for line in part.replace("\\\n", " ").splitlines())
    return [m[1] for line in lines if (m := re.search(r"(?:^|\s)facedistill ([a-z-].*)$", line))]


@pytest.fixture
def user(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: photos, a teacher, a run, a recipe."""
    shutil.copytree(tiny.photos, tmp_path / "photos")
    shutil.copytree(tiny.teacher / "model", tmp_path / "teacher")
    shutil.copytree(tiny.student, tmp_path / "run")
    shutil.copyfile(tiny.recipe, tmp_path / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", with_blocks("python"))
def test_python_runs(name: str, user: Path) -> None:
    names: dict[str, Any] = {"__name__": "snippet"}
    for source in blocks(page(name), "python"):
        if file := re.match(r"# (\w+\.py)\n", source):
            (user / file[1]).write_text(source)
        exec(compile(source, f"{name}, a Python block", "exec"), names)


@pytest.mark.parametrize("name", with_blocks("yaml"))
def test_yaml_is_a_recipe(name: str, user: Path) -> None:
    for source in blocks(page(name), "python"):
        if file := re.match(r"# (\w+\.py)\n", source):
            (user / file[1]).write_text(source)
    for source in blocks(page(name), "yaml"):
        (user / "page.yaml").write_text(source)
        load_recipe("page.yaml")


@pytest.mark.parametrize("name", with_blocks("json"))
def test_json_is_json(name: str) -> None:
    for source in blocks(page(name), "json"):
        json.loads(source)


@pytest.mark.parametrize("file", PAGES, ids=title)
def test_commands_parse(file: Path) -> None:
    for command in commands(file.read_text("utf-8")):
        words = shlex.split(command, comments=True)
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as e:
            pytest.fail(f"{file.name}: facedistill {command}: {e}")
        for word in words:
            if re.match(r"[a-z_.]+=", word):
                combinations(["scratch"], [word])  # an override with a key that exists, and of a sweep its values


def test_commands_are_found() -> None:
    """The pattern above does see the commands of a page."""
    text = "`facedistill show run` and\n\n    facedistill list methods\n\n```sh\nfacedistill demo  # x\n```\n"
    assert commands(text) == ["demo  # x", "list methods", "show run"]
    assert len(commands(page("README.md"))) >= 6


@pytest.mark.parametrize("file", PAGES, ids=title)
def test_links_lead_somewhere(file: Path) -> None:
    text = FENCED.sub("", file.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (file.parent / target.partition("#")[0]).exists(), f"{file.name} links to {target}"


def test_every_page_is_in_the_menu_of_the_site() -> None:
    def places(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [place for part in (entry.values() if isinstance(entry, dict) else entry) for place in places(part)]

    menu = places(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(menu) == sorted(title(p) for p in PAGES if p.is_relative_to(DOCS))


def test_the_reference_has_every_public_name() -> None:
    pages = "\n".join(p.read_text("utf-8") for p in (DOCS / "reference").glob("*.md"))
    found = re.findall(r"^::: facedistill\.(\w+)$", pages, re.MULTILINE)
    assert sorted(found) == sorted({*vars(facedistill)["__all__"]} - {"__version__"})


def test_every_make_target_of_the_readme_exists() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake (\w[\w-]*)\s", "\n".join(blocks(page("README.md"), "sh")))) <= set(targets)


def recipe_keys() -> dict[str, str | None]:
    """Every key of a recipe with its default as it stands in the table, None where it has none."""
    found: dict[str, str | None] = {}

    def walk(group: Any, prefix: str) -> None:
        for field in fields(group):
            value = getattr(group, field.name)
            if is_dataclass(value):
                walk(value, f"{prefix}{field.name}.")
            else:
                found[prefix + field.name] = json.dumps(value)

    walk(Recipe(), "")
    walk(TermSpec(), "method.terms.NAME.")
    walk(Search(), "search.")
    walk(Hallucination(), "hallucination.")
    walk(TeacherSpec("x"), "teachers.NAME.")
    return found | {"teachers.NAME.model": None}


def test_the_recipe_page_has_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`)? ?\|", page("recipe.md"), re.MULTILINE)
    assert {key: default or None for key, default in rows} == recipe_keys()


def test_the_pages_name_all_there_is() -> None:
    for text, names in (
        (page("methods.md"), [*METHODS, *TERMS]),
        (page("margins.md"), MARGINS),
        (page("README.md") + page("model.md"), [n for n in BACKBONES if n.startswith("mobile")]),
        (page("sources.md"), IMAGE_SUFFIXES),
    ):
        assert not [name for name in names if name not in text]


def test_the_defaults_of_the_synthetic_faces(user: Path) -> None:
    spec = re.search(r"`(synthetic:identities=\d+,images[^`]*)` \(these are the defaults", page("sources.md"))
    assert spec and open_dataset("synthetic").source.path == spec[1]


def test_the_json_page_has_the_keys_of_a_result(tiny: Tiny) -> None:
    shown = json.loads(blocks(page("evaluation.md"), "json")[0])
    models = {"student": load_model(tiny.student), "teacher": load_model(tiny.teacher)}
    found = evaluate(models, [tiny.photos], fars=[0.1], resamples=5)
    cross = next(r for r in found["results"] if r["probe"] != r["gallery"])
    assert set(shown["results"][0]) == set(cross)
    for key in ("settings", "tar_at_far"):
        one, other = (
            r[key] if key == "settings" else next(iter(r[key].values())) for r in (shown["results"][0], cross)
        )
        assert set(one) == set(other)


def test_yaml_blocks_hold_one_document() -> None:
    for file in PAGES:
        for source in blocks(file.read_text("utf-8"), "yaml"):
            assert isinstance(yaml.safe_load(source), dict)


def test_tests_that_pages_name_are_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"`(?:tests/)?(test_\w+\.py)`", page.read_text(encoding="utf-8")))
        assert named <= there, page
