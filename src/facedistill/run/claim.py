"""Who may train in a run folder: one process, one recipe."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from facedistill import parallel
from facedistill.errors import UsageError, UserError
from facedistill.files import atomic_write, claimed, in_use
from facedistill.methods import resolve
from facedistill.recipe import Recipe, dump_recipe, load_recipe
from facedistill.run.checkpoint import begun


class Busy(UserError):
    """Another process is at the run."""


@contextmanager
def claim_run(run: Path, recipe: Recipe) -> Iterator[None]:
    """Hold the run folder, with its resolved recipe in it, while it is trained.

    Raises Busy while another process holds it, and UsageError where it holds another run or something else.
    """
    with ExitStack() as held:
        if parallel.rank() == 0:
            if not (run / "recipe.yaml").exists() and in_use(run):
                raise UsageError(f"{run} exists and holds no run (no recipe.yaml); choose another --out")
            run.mkdir(parents=True, exist_ok=True)
            if not held.enter_context(claimed(run / ".lock")):
                raise Busy(f"{run}: another process is at this run; wait for it, or choose another --out")
            _put_recipe(run, recipe)
        parallel.barrier()
        yield


def _put_recipe(run: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, unless it is there. One that came to no checkpoint is replaced, if we wrote it."""
    text, file = dump_recipe(recipe), run / "recipe.yaml"
    if file.exists():
        other = load_recipe(str(file))  # an earlier version's file lacks the keys that came later: they are at default
        other.method = resolve(other.method)
        if (old := dump_recipe(other)) == text:
            return
        if begun(run) or file.read_text(encoding="utf-8") != old:
            lines = text.splitlines()
            line = next((line for line in old.splitlines() if line not in lines), "other keys")
            raise UsageError(
                f"{run} holds a run of another recipe (there: '{line.strip()}'); choose another --out or delete it"
            )
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
