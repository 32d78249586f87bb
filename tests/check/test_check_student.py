"""check_student: only a student of the same space, whose embeddings agree, may probe the teacher's gallery."""

import json

import numpy as np
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


def _cosines() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit embeddings of all images, mirror images added, by a student and by the teacher; and the labels."""
    student = red_eye(backbone=RedEye(seed=1), space="a")
    images = DATA.batch(range(len(DATA))).images
    own, other = (model.embed(images).double().numpy() for model in (student, TEACHER))
    return own, other, np.asarray(DATA.labels)


def test_the_ceiling_and_the_worst_people_written_out() -> None:
    own, other, labels = _cosines()
    report = check_student(red_eye(backbone=RedEye(seed=1), space="a"), TEACHER, DATA)
    centres = np.stack([other[labels == c].sum(0) for c in range(60)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    assert report.values["mean_cosine_ceiling"] == pytest.approx((other * centres[labels]).sum(1).mean(), abs=1e-4)
    assert report.values["mean_cosine"] == pytest.approx((own * other).sum(1).mean(), abs=1e-4)

    def mean(c: int) -> float:
        rows = np.flatnonzero(labels == c)
        return float(np.mean([own[i] @ other[j] for i in rows for j in rows if i != j]))

    worst = sorted(range(60), key=mean)[:5]
    assert [found["name"] for found in report.values["worst_people"]] == [f"person{c:03d}" for c in worst]
    assert report.values["worst_people"][0]["mean_cosine"] == pytest.approx(mean(worst[0]), abs=1e-4)
    assert f"person{worst[0]:03d} {mean(worst[0]):.2f}" in report.text()


@pytest.mark.parametrize("of", ["the pair", "the teacher"])
def test_far_and_tar_at_the_thresholds_that_are_kept(of: str) -> None:
    own, other, labels = _cosines()
    student, teacher = red_eye(backbone=RedEye(seed=1), space="a"), red_eye(space="a")
    names = {"student": student.fingerprint(), "teacher": teacher.fingerprint()}
    pair = {"probe": names["student" if of == "the pair" else "teacher"], "gallery": names["teacher"], "set": "lfw"}
    kept = [{"far": 1e-3, "value": 0.4, **pair}, {"far": 1e-2, "value": 0.3, **pair}]
    stray = [{"far": 1e-4, "value": 0.1, **pair, "probe": "other"}, {"far": 1e-4, "value": 0.1, **pair, "flip": "none"}]
    (student if of == "the pair" else teacher).thresholds = stray + kept
    if of == "the pair":
        teacher.thresholds = [{"far": 1e-3, "value": 0.9, "probe": names["teacher"], "gallery": names["teacher"]}]
    report = check_student(student, teacher, DATA)
    scores, same = own @ other.T, labels[:, None] == labels
    apart = ~np.eye(len(labels), dtype=bool)
    found = report.values["at_gallery_threshold"]
    assert list(found) == ["1e-3", "1e-2"]
    for key, value in (("1e-3", 0.4), ("1e-2", 0.3)):
        assert found[key]["far"] == pytest.approx((scores[~same] >= value).mean(), abs=1e-4)
        assert found[key]["tar"] == pytest.approx((scores[same & apart] >= value).mean(), abs=1e-3)
    assert "at the gallery's threshold 0.400 (FAR 0.001, kept from lfw) the student gets FAR" in report.text()


def test_the_sentence_and_the_gain() -> None:
    """A student with noise of its own: better against the sharp teacher's gallery than in one of its own."""
    blurred = red_eye(space="a")
    embed = blurred.forward

    def noisy(images: torch.Tensor) -> torch.Tensor:
        clean = embed(images)
        seed = int(images.double().sum().item()) % 2**31
        return clean + 0.35 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))

    blurred.forward = noisy  # type: ignore[method-assign]
    report = check_student(blurred, TEACHER, DATA)
    rates = [
        report.values[name]["tar_at_far"]["1e-2"]["value"]
        for name in ("student_student", "student_teacher", "teacher_teacher")
    ]
    alone, crossed, ceiling = rates
    assert alone < crossed < ceiling
    gain = report.values["update_gain"]["1e-2"]
    assert gain["value"] == pytest.approx((crossed - alone) / (ceiling - alone))
    assert gain["ci95"][0] <= gain["value"] <= gain["ci95"][1] and f"update gain {gain['value']:.2f}" in report.text()
    assert "may probe the teacher's gallery, which serves it better than one of its own" in report.values["verdict"]
    assert f"it accepts {100 * crossed:.0f}, where the teacher accepts {100 * ceiling:.0f}" in report.values["verdict"]


def test_a_student_that_its_teacher_did_not_tie_is_told_so() -> None:
    relational = red_eye(space="b", made={"method": "cckd", "teachers": ["a"]})
    fault = check_student(relational, TEACHER, DATA).faults["space"]
    assert "no term of cckd ties the student" in fault and "0.1% mAP" in fault
    stranger = check_student(red_eye(space="b", made={"method": "cckd", "teachers": ["c"]}), TEACHER, DATA)
    assert "0.1% mAP" not in stranger.faults["space"]
