"""The two kinds of user error and the suggestion of a near name."""

from facedistill.errors import UsageError, UserError, closest, printable, printable_lines, some


def test_exit_codes() -> None:
    assert UserError.exit_code == 1 and UsageError.exit_code == 2
    assert issubclass(UsageError, UserError)


def test_the_nearest_name_is_suggested_and_nothing_far_off() -> None:
    assert closest("schedul", ["student", "schedule"]) == " (did you mean 'schedule'?)"
    assert closest("xyzzy", ["student", "schedule"]) == ""
    assert closest("anything", []) == ""


def test_a_name_is_printed_without_control_characters() -> None:
    assert printable("Zoë 漢字 [b] $x$ a\\b") == "Zoë 漢字 [b] $x$ a\\b"
    assert printable("a\x1b[2J\n\r\t\x7f\x9b\u2028\u202e\udce9") == r"a\x1b[2J\n\r\t\x7f\x9b\u2028\u202e\udce9"
    assert printable_lines("a\x07\nb\r") == "a\\x07\nb\\r" and printable(7) == "7"
    assert some(["a\x07", "b"]) == r"a\x07, b"


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    assert str(UserError("a key 'x\ny\x1b[2J'")) == r"a key 'x\ny\x1b[2J'"
    assert str(UsageError()) == ""
