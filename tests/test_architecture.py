"""Imports point one way, what must start fast imports nothing heavy, and every public name is there."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import facedistill

ROOT = Path(facedistill.__file__).parent

# From the bottom up. A room is a module or a package at the top level. It imports from lower rooms only; the modules of
# a package import from each other, without circles. Rooms of one layer do not know each other.
LAYERS = [
    ["errors"],
    ["files", "progress", "parallel"],
    ["recipe"],
    ["backbones", "methods"],
    ["run"],
    ["data"],
    ["head"],
    ["models", "terms"],
    ["evaluation"],
    ["check", "results"],
    ["training"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
LAYER = {"": -1} | {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = ("torch", "numpy", "pydantic", "yaml", "PIL", "safetensors", "simplejpeg", "onnx", "onnxruntime", "pyarrow")


@cache
def _modules() -> dict[str, ast.Module]:
    """Every module by its dotted name inside the package; a package by the name of its folder."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def _imports(name: str) -> set[str]:
    """Our modules that the module `name` imports, wherever in the file, those for the type checker alone left out."""
    skipped = {
        inner
        for node in ast.walk(_modules()[name])
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(_modules()[name]):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("facedistill.") for alias in node.names if alias.name.startswith("facedi")
            }
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}; write it from facedistill on"
            module = node.module or ""
            if module == "facedistill" or module.startswith("facedistill."):
                inside = module.removeprefix("facedistill").removeprefix(".")
                for alias in node.names:
                    deeper = f"{inside}.{alias.name}".removeprefix(".")
                    found.add(deeper if deeper in _modules() else inside)
    return found - {name}


def _top(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_has_its_layer() -> None:
    homeless = sorted({_top(name) for name in _modules() if name} - set(LAYER))
    assert not homeless, f"put {homeless} into LAYERS"


@pytest.mark.parametrize("name", sorted(n for n in _modules() if n))
def test_imports_point_down(name: str) -> None:
    for other in _imports(name):
        assert other in _modules(), f"{name} imports {other}, which is not there"
        if _top(other) != _top(name):
            assert LAYER[_top(other)] < LAYER[_top(name)], f"{name} imports {other}, which is not below it"


@pytest.mark.parametrize("name", sorted(n for n in _modules() if n))
def test_a_room_is_entered_by_its_public_face(name: str) -> None:
    """A module imports from another room's package, never from a module inside it."""
    for other in _imports(name):
        if _top(other) != _top(name):
            assert not _inside(other), f"{name} imports {other}; import it from {other.rpartition('.')[0]}"


def _inside(name: str) -> bool:
    """True for a module of a package, False for a package and for a module at the top level."""
    return "." in name and not (ROOT / name.replace(".", "/")).is_dir()


def test_no_circles() -> None:
    graph = {name: _imports(name) - {""} for name in _modules() if name}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_the_package_itself_imports_none_of_its_modules() -> None:
    assert not _imports("")


@pytest.mark.parametrize("module", ["facedistill", "facedistill.cli.app"])
def test_starts_light(module: str) -> None:
    if module == "facedistill.cli.app" and "cli" not in _modules():
        pytest.skip("there is no command line yet")
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_need_no_torch() -> None:
    code = "import sys, facedistill.results; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_resolves() -> None:
    for name in facedistill.__all__:
        assert getattr(facedistill, name) is not None
    assert set(facedistill.__all__) <= {*dir(facedistill), "__version__"}
    with pytest.raises(AttributeError, match="nonsense"):
        _ = facedistill.nonsense
