"""check_student: only a student of the same space, whose embeddings agree, may probe the teacher's gallery."""

import json

import pytest
import torch
from torch import nn

from check_toys import Patterns, RedEye, red_eye
from facedistill.check import check_student
from facedistill.data.dataset import Dataset

DATA = Dataset(Patterns(people=60))
TEACHER = red_eye(space="a")


def test_a_student_that_agrees_may_probe() -> None:
    student = red_eye(std=140.0, space="a")
    report = check_student(student, TEACHER, DATA)
    assert report.passed and not report.warnings, report.text()
    assert report.values["mean_cosine"] > 0.99
    found = json.loads(json.dumps(report.to_json()))
    tars = [found[pair]["tar_at_far"]["1e-2"]["value"] for pair in ("student_teacher", "teacher_teacher")]
    assert tars[0] == pytest.approx(tars[1], abs=0.05) and tars[1] > 0.9
    assert found["at_gallery_threshold"]["1e-2"]["far"] < 0.03
    assert "teacher against teacher 9" in report.text() or "teacher against teacher 100" in report.text()


def test_another_space_id_is_refused_and_measured_nevertheless() -> None:
    report = check_student(red_eye(space="b"), TEACHER, DATA)
    assert list(report.faults) == ["space"] and report.values["mean_cosine"] == pytest.approx(1)


def test_two_models_without_a_space_are_not_in_the_same_one() -> None:
    assert list(check_student(red_eye(), red_eye(), DATA).faults) == ["space"]


def test_the_same_space_id_is_not_believed_where_the_embeddings_differ() -> None:
    report = check_student(red_eye(backbone=RedEye(seed=1), space="a"), TEACHER, DATA)
    assert list(report.faults) == ["agreement"]
    assert report.values["student_teacher"]["tar_at_far"]["1e-2"]["value"] < 0.3


def test_another_dimension_is_one_line_and_nothing_runs() -> None:
    projected = red_eye(projection=nn.Linear(16, 8, bias=False), space="a")
    report = check_student(projected, TEACHER, DATA)
    assert list(report.faults) == ["dimension"]
    assert "8 dimensions, the teacher's 16" in report.faults["dimension"] and "mean_cosine" not in report.values


def test_too_few_pairs_is_a_warning() -> None:
    report = check_student(red_eye(space="a"), TEACHER, Dataset(Patterns(people=3, photos=4)))
    assert "pairs" in report.warnings and report.passed


def test_it_looks_at_no_more_images_than_asked_for() -> None:
    torch.manual_seed(0)
    assert check_student(TEACHER, TEACHER, DATA, images=100).values["images"] == 100
