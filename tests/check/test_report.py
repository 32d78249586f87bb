"""The report of a check: a table to read at a glance, then the sentences."""

import json

from check_toys import Patterns, red_eye
from facedistill.check import CheckReport, check_student, check_teacher
from facedistill.data.dataset import Dataset
from facedistill.head.margins import ArcFace


def _table(text: str) -> dict[str, str]:
    """The verdict of each row of the table, by what was measured."""
    rows = [line.split("  ") for line in text.split("\n\n")[0].splitlines()]
    assert [cell.strip() for cell in rows[0] if cell] == ["what", "measured", "expected", "verdict"]
    return {row[0]: row[-1].strip() for row in rows[1:]}


def test_the_table_stands_before_the_sentences_and_the_verdict_last() -> None:
    report = CheckReport(lines=["a sentence"], faults={"names": "wrong"}, warnings={"labels": "odd"})
    report.add("class names", "3", "5", "classes", "names")
    report.add("labels", "2.0%", "under 2%", "labels")
    report.add("a name\x1b[2J", "1", "1", "input")
    assert report.text().splitlines() == [
        "what           measured  expected  verdict",
        "class names    3         5         FAILED",
        "labels         2.0%      under 2%  warning",
        "a name\\x1b[2J  1         1         ok",
        "",
        "a sentence",
        "warning: odd",
        "fault: wrong",
        "check FAILED",
    ]
    assert [row["verdict"] for row in json.loads(json.dumps(report.to_json()))["verdicts"]] == [
        "FAILED",
        "warning",
        "ok",
    ]


def test_a_teachers_faults_stand_in_its_table() -> None:
    data = Dataset(Patterns(people=60, photos=6))
    right = _table(check_teacher(red_eye(), data, ArcFace(0.1), 16.0, images=300).text())
    assert len(right) == 5 and set(right.values()) == {"ok"}
    wrong = _table(check_teacher(red_eye(colour="bgr"), data, ArcFace(0.1), 16.0, images=300).text())
    assert wrong["colour order and pixel scale"] == "FAILED"


def test_a_students_faults_stand_in_its_table() -> None:
    data = Dataset(Patterns(people=60))
    found = _table(check_student(red_eye(space="b"), red_eye(space="a"), data).text())
    assert list(found.values()) == ["ok", "FAILED", "ok"] and list(found)[2] == "TAR at FAR 1e-2, teacher's gallery"
