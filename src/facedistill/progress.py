"""One progress bar for all long work: task, progress, rate and time left, on stderr if that is a terminal."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
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


class Pace:
    """The speed of work since it was begun or resumed, and the time left, for a log file that shows no bar."""

    def __init__(self, total: int, done: int = 0, unit: str = "images") -> None:
        self.total, self.first, self.unit, self.began = total, done, unit, time.perf_counter()

    def text(self, done: int) -> str:
        """Return e.g. "812 images/s, 1:02:30 left"."""
        rate = (done - self.first) / max(time.perf_counter() - self.began, 1e-9)
        left = round((self.total - done) / rate) if rate else 0
        return f"{rate:,.0f} {self.unit}/s, {timedelta(seconds=left)} left"


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
