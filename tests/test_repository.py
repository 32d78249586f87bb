"""The repository stays small: a clone takes seconds, and nobody has to scroll past results."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MB = 1_000_000


def tracked(under: str) -> dict[str, int]:
    """The bytes of every file that git tracks below a folder."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", under], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git, or its record of this folder, is absent: which files are tracked is not known")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return {str(file.relative_to(ROOT)): file.stat().st_size for file in files if file.is_file()}


@pytest.mark.parametrize(("folder", "limit"), [(".", 7 * MB), ("benchmarks/results", 3 * MB)])
def test_tracked_files_are_small(folder: str, limit: int) -> None:
    sizes = tracked(folder)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
    assert sum(sizes.values()) < limit, f"{folder}: the largest are {', '.join(largest)}"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name alone: of two with one name, the second is an error, or silently the first."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
