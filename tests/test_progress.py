"""Lines on stderr: names are printed as they are, without markup and control characters."""

import pytest

from facedistill import progress

EVIL = "a[/b]7\x1b[31m\u202e:smile:.jpg"


def test_a_name_is_neither_markup_nor_control(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say(f"{EVIL}\nsecond {'x' * 200}")
    assert capsys.readouterr().err == f"a[/b]7\\x1b[31m\\u202e:smile:.jpg\nsecond {'x' * 200}\n"


def test_a_bar_takes_any_name() -> None:
    from rich.console import Console

    display = progress.bar()
    display.add_task("embedding [/b]", total=2, unit="images", note="[/i]")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(display.get_renderable())
    assert "embedding [/b]" in shown.get() and "[/i]" in shown.get()
