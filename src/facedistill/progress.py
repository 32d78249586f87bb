"""One progress bar for all long work: task, progress, rate and time left, on stderr if that is a terminal."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from facedistill.errors import printable_lines

T = TypeVar("T")
console = Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print a line on stderr, above a progress bar if there is one. Names in it are printed as they are."""
    console.print(printable_lines(text), soft_wrap=True)


class RateColumn(ProgressColumn):
    """Renders e.g. "812 images/s" for a task whose `unit` field is "images"."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


def bar() -> Progress:
    """Return a progress display; add tasks with `add_task(description, total=..., unit="images", note="")`."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # no bars in a log file
    )


def track(
    items: Iterable[T], description: str, total: int, unit: str = "images", size: Callable[[T], int] | None = None
) -> Iterator[T]:
    """Yield `items` under a progress bar of `total` units; `size(item)` is the number of units of an item."""
    with bar() as display:
        task = display.add_task(description, total=total, unit=unit, note="")
        for item in items:
            yield item
            display.advance(task, size(item) if size else 1)
