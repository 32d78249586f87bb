"""Imports point one way, what must start fast imports nothing heavy, and every public name is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from structure import floors, imports, largest_file, longest_function, modules, room

import facedistill

ROOT = Path(facedistill.__file__).parent

# From the bottom up. A room is a module or a package at the top level. It imports from lower rooms only; the modules of
# a package import from each other, without circles. Rooms of one layer do not know each other.
LAYERS = [
    ["errors"],
    ["files", "heap", "progress", "parallel"],
    ["recipe"],
    ["backbones", "methods"],
    ["run"],
    ["data"],
    ["head"],
    ["models", "terms"],
    ["evaluation"],
    ["check", "results"],
    ["training"],
    ["architecture_search", "cleaning", "demo", "export", "hallucination", "preparation"],
    ["gallery"],
    ["cli"],
    ["__main__"],
]
LAYER = {"": -1} | {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = ("torch", "numpy", "pydantic", "yaml", "PIL", "safetensors", "simplejpeg", "onnx", "onnxruntime", "pyarrow")


def test_every_module_has_its_layer() -> None:
    homeless = sorted({room(name) for name in modules() if name} - set(LAYER))
    assert not homeless, f"put {homeless} into LAYERS"


@pytest.mark.parametrize("name", sorted(n for n in modules() if n))
def test_imports_point_down(name: str) -> None:
    for other in imports(name):
        assert other in modules(), f"{name} imports {other}, which is not there"
        if room(other) != room(name):
            assert LAYER[room(other)] < LAYER[room(name)], f"{name} imports {other}, which is not below it"


@pytest.mark.parametrize("name", sorted(n for n in modules() if n))
def test_a_room_is_entered_by_its_public_face(name: str) -> None:
    """A module imports from another room's package, never from a module inside it."""
    for other in imports(name):
        if room(other) != room(name):
            assert not _inside(other), f"{name} imports {other}; import it from {other.rpartition('.')[0]}"


def _inside(name: str) -> bool:
    """True for a module of a package, False for a package and for a module at the top level."""
    return "." in name and not (ROOT / name.replace(".", "/")).is_dir()


def test_no_circles() -> None:
    graph = {name: imports(name) - {""} for name in modules() if name}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_the_package_itself_imports_none_of_its_modules() -> None:
    assert not imports("")


@pytest.mark.parametrize("module", ["facedistill", "facedistill.cli.app"])
def test_starts_light(module: str) -> None:
    if module == "facedistill.cli.app" and "cli" not in modules():
        pytest.skip("there is no command line yet")
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_need_no_torch() -> None:
    code = "import sys, facedistill.results; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_resolves() -> None:
    public = vars(facedistill)["__all__"]  # lazy_loader makes it; the stub has the names themselves
    for name in public:
        assert getattr(facedistill, name) is not None
    assert set(public) <= {*dir(facedistill), "__version__"}
    with pytest.raises(AttributeError, match="nonsense"):
        _ = facedistill.nonsense  # type: ignore[attr-defined]


def test_the_house_stays_small() -> None:
    """A reader finds the way: few modules at the top, short functions, no large file."""
    loose = [name for name in modules() if name and "." not in name and not (ROOT / name).is_dir()]
    assert set(loose) == {"__main__", "demo", "errors", "files", "heap", "methods", "parallel", "progress"}
    assert longest_function()[0] <= 60 and largest_file()[0] <= 500
    assert len(floors()) <= 30


def test_every_package_lists_its_public_names() -> None:
    for name in modules():
        if (ROOT / name.replace(".", "/")).is_dir() and name:
            module = importlib.import_module(f"facedistill.{name}")
            assert module.__doc__ and module.__all__, name
            assert all(hasattr(module, public) for public in module.__all__), name
