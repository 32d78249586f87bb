"""The two kinds of user error and the suggestion of a near name."""

from facedistill.errors import UsageError, UserError, closest


def test_exit_codes() -> None:
    assert UserError.exit_code == 1 and UsageError.exit_code == 2
    assert issubclass(UsageError, UserError)


def test_the_nearest_name_is_suggested_and_nothing_far_off() -> None:
    assert closest("schedul", ["student", "schedule"]) == " (did you mean 'schedule'?)"
    assert closest("xyzzy", ["student", "schedule"]) == ""
    assert closest("anything", []) == ""
