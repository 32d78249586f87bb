"""Claim a run folder for one process and one recipe."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from facedistill import parallel
from facedistill.errors import UsageError, UserError
from facedistill.files import atomic_write, claimed, in_use, writing
from facedistill.run.checkpoint import begun

RECIPE = "recipe.yaml"


class Busy(UserError):
    """Another process is working on the run."""


@contextmanager
def claim_run(run: Path, recipe: str, written_out: Callable[[str], str]) -> Iterator[None]:
    """Hold the run folder, with its recipe in it, while a job works there.

    Args:
        recipe: all settings of the job, as text; the folder keeps it as recipe.yaml.
        written_out: reads a stored recipe and returns it as this version of the program writes it.

    Raises:
        Busy: another process holds the folder.
        UsageError: the folder holds another run, or something that is not a run.
    """
    with ExitStack() as held:
        if parallel.rank() == 0:
            if not (run / RECIPE).exists() and in_use(run):
                raise UsageError(f"{run} exists and holds no run (no {RECIPE}); choose another --out")
            with writing(run):
                run.mkdir(parents=True, exist_ok=True)
                free = held.enter_context(claimed(run / ".lock"))
            if not free:
                raise Busy(f"{run}: another process is working on this run; wait for it, or choose another --out")
            _put_recipe(run, recipe, written_out)
        parallel.barrier()
        yield


def _put_recipe(run: Path, recipe: str, written_out: Callable[[str], str]) -> None:
    """Write the recipe unless it is there. Another recipe without a checkpoint is replaced, unless it was edited."""
    file = run / RECIPE
    if file.exists():
        try:
            text = file.read_text(encoding="utf-8")
            old = written_out(text)
        except (OSError, ValueError, UsageError) as e:
            raise UsageError(f"{file}: cannot be read ({e}); restore it, or choose another --out") from e
        if old == recipe:
            return
        if begun(run) or text != old:
            lines = recipe.splitlines()
            line = next((line for line in old.splitlines() if line not in lines), "other keys")
            raise UsageError(
                f"{run} holds a run of another recipe (there: '{line.strip()}'); choose another --out or delete it"
            )
    with atomic_write(file) as temporary:
        temporary.write_text(recipe, encoding="utf-8")
