"""The structure of a package, measured from its source: rooms, floors, arrows, the longest function, the largest file.

    python benchmarks/structure.py [src/facedistill]

A room is a module or a package at the top level. An arrow is a pair of rooms of which one imports the other. A floor is
the length of the longest way down from a room to one that imports none.
"""

import ast
import sys
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "facedistill"


@cache
def modules(root: Path = PACKAGE) -> dict[str, ast.Module]:
    """Return every module by its dotted name inside the package; a package by the name of its folder."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, root: Path = PACKAGE) -> set[str]:
    """Return our modules that the module `name` imports anywhere in its file, except for the type checker alone.

    Raises:
        ValueError: a relative import.
    """
    tree, package = modules(root)[name], root.name
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {n.removeprefix(f"{package}.") for n in names if n == package or n.startswith(f"{package}.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{name}: relative import in line {node.lineno}; write it from {package} on")
            module = node.module or ""
            if module == package or module.startswith(f"{package}."):
                inside = module.removeprefix(package).removeprefix(".")
                for alias in node.names:
                    deeper = f"{inside}.{alias.name}".removeprefix(".")
                    found.add(deeper if deeper in modules(root) else inside)
    return found - {name}


def room(name: str) -> str:
    """Return the module or package at the top level that holds the module."""
    return name.partition(".")[0]


def arrows(root: Path = PACKAGE) -> set[tuple[str, str]]:
    """Return the pairs (room, room that it imports), without the package's own __init__."""
    found = {(room(name), room(other)) for name in modules(root) for other in imports(name, root)}
    return {(a, b) for a, b in found if a and b and a != b}


def floors(root: Path = PACKAGE) -> dict[str, int]:
    """Return the floor of every room, from 1."""
    below: dict[str, set[str]] = {room(name): set() for name in modules(root) if name}
    for a, b in arrows(root):
        below[a].add(b)

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in below[name]), default=0)

    return {name: floor(name) for name in below}


def longest_function(root: Path = PACKAGE) -> tuple[int, str]:
    """Return the lines of code of the longest function, without its docstring, and its name."""
    found = []
    for name, tree in modules(root).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = ast.get_docstring(node) is not None
                code = (first.end_lineno or 0) + 1 if docstring else node.lineno
                found.append((max(0, (node.end_lineno or 0) - code + 1), f"{name}.{node.name}"))
    return max(found)


def largest_file(root: Path = PACKAGE) -> tuple[int, str]:
    """Return the lines of the largest module, and its name."""
    paths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in root.rglob("*.py")}
    path = max(paths, key=lambda p: paths[p])
    return paths[path], str(path.relative_to(root))


def summary(root: Path = PACKAGE) -> str:
    """Return the figures, one per line."""
    names = [name for name in modules(root) if name]
    at_top = [name for name in names if "." not in name and not (root / name).is_dir()]
    levels = floors(root)
    lines, where = longest_function(root)
    size, file = largest_file(root)
    return "\n".join(
        [
            f"modules: {len(names)}, of which {len(at_top)} lie at the top level",
            f"rooms: {len(levels)} on {max(levels.values())} floors, {len(arrows(root))} arrows between them",
            f"longest function: {where}, {lines} lines",
            f"largest file: {file}, {size} lines",
        ]
    )


if __name__ == "__main__":
    print(summary(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PACKAGE))
