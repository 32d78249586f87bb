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


def test_a_pace_tells_the_speed_since_it_began_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    pace = progress.Pace(total=41_000, done=1000)
    assert pace.text(5000) == "400 images/s, 0:01:30 left"  # 4000 in 10 s, 36,000 are left
