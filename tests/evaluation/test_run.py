"""evaluate(): the JSON, and the LFW figures of the four shared models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation_toys import PEOPLE, PHOTOS, model, write_bin, write_folder
from facedistill.data.dataset import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import evaluate
from facedistill.head.classifier import Classifier
from facedistill.models.folder import load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "faces")


def no_nulls(value: object) -> bool:
    if isinstance(value, dict):
        return all(no_nulls(v) for v in value.values())
    return all(no_nulls(v) for v in value) if isinstance(value, list) else value is not None


def test_the_json_of_student_and_teacher(folder: Path) -> None:
    models = {"student": model(1, noise=0.7, space="s"), "teacher": model(2, noise=0.1, space="s")}
    bin_file = write_bin(folder.parent / "lfw.bin", names=True)
    result = evaluate(models, [bin_file, folder], resamples=20, paths={"student": "runs/a"})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert no_nulls(result)
    assert result["models"]["student"] == {"path": "runs/a", "space": "s", "parameters": 0, "macs": 16 * 16 * 16 * 3}
    order = [("student", "student"), ("student", "teacher"), ("teacher", "teacher")]
    assert [(r["set"], r["protocol"], r["probe"], r["gallery"]) for r in result["results"]] == [
        (*where, *who) for where in (("lfw", "all-pairs"), ("lfw", "pairs"), ("faces", "all-pairs")) for who in order
    ]
    assert all(r["same_space"] for r in result["results"])
    pairs, cross = result["results"][3], result["results"][7]
    assert pairs["pairs"] == 60
    assert pairs["settings"] == {
        "flip": "sum", "threshold": "grid", "folds": 10, "resampled": "identities", "resamples": 20, "seed": 0,
    }  # fmt: skip
    assert pairs["ci95"][0] <= pairs["accuracy"] <= pairs["ci95"][1]
    assert cross["settings"]["directions"] == "both, pooled"
    images = PEOPLE * PHOTOS
    assert (cross["images"], cross["pairs"], cross["genuine"]) == (images, images * (images - 1), images * (PHOTOS - 1))
    assert "accuracy" not in cross


def test_rates_at_the_gallerys_threshold_are_counted_anew(folder: Path) -> None:
    models = {"student": model(1, noise=0.7), "teacher": model(2, noise=0.1)}
    result = evaluate(models, [folder], fars=(0.1, 1e-9), resamples=0, flip="none")
    _, cross, teacher = result["results"]
    dataset = open_dataset(folder)
    images = torch.stack([torch.from_numpy(dataset.image(i).transpose(2, 0, 1).copy()) for i in range(len(dataset))])
    s, t = (m.embed(images, "none").numpy() for m in models.values())
    genuine = (dataset.labels[:, None] == dataset.labels) & ~np.eye(len(s), dtype=bool)
    impostor = dataset.labels[:, None] != dataset.labels
    threshold = teacher["tar_at_far"]["1e-1"]["threshold"]
    assert (t @ t.T)[impostor].__ge__(threshold - 1e-6).mean() == pytest.approx(0.1, abs=2e-3)
    assert cross["at_gallery_threshold"] == {
        "1e-1": {
            "threshold": threshold,
            "far": pytest.approx(((s @ t.T)[impostor] >= threshold).mean(), abs=1e-3),
            "tar": pytest.approx(((s @ t.T)[genuine] >= threshold).mean(), abs=1e-2),
        }
    }
    assert cross["mean_cosine"] == {"value": pytest.approx((s * t).sum(1).mean(), abs=1e-5)}


def test_the_ceiling_needs_the_classes_of_the_set(folder: Path) -> None:
    teacher = model(2)
    names = [f"p{person:02}" for person in range(PEOPLE)]
    teacher.classifier = Classifier(torch.randn(PEOPLE + 1, 16), ["another", *names[::-1]])
    result = evaluate({"student": model(1, noise=0.5), "teacher": teacher}, [folder], resamples=0)
    table = open_dataset(folder)
    images = torch.stack([torch.from_numpy(table.image(i).transpose(2, 0, 1).copy()) for i in range(len(table))])
    rows = teacher.classifier.weight[[PEOPLE - label for label in table.labels.tolist()]]
    ceiling = (teacher.embed(images) * rows).sum(1).mean().item()
    assert result["results"][1]["mean_cosine"]["ceiling"] == pytest.approx(ceiling, abs=1e-5)
    teacher.classifier = Classifier(torch.randn(PEOPLE - 1, 16), names[1:])
    result = evaluate({"student": model(1), "teacher": teacher}, [folder], resamples=0)
    assert "ceiling" not in result["results"][1]["mean_cosine"]


def test_spaces_and_dimensions(folder: Path) -> None:
    result = evaluate({"student": model(1, dim=8), "teacher": model(2)}, {"mine": folder}, resamples=0)
    assert [(r["probe"], r["gallery"]) for r in result["results"]] == [("student", "student"), ("teacher", "teacher")]
    assert {r["set"] for r in result["results"]} == {"mine"}
    result = evaluate({"student": model(1, space="a"), "teacher": model(2, space="b")}, [folder], resamples=0)
    assert [r["same_space"] for r in result["results"]] == [True, False, True]
    result = evaluate({"student": model(1), "teacher": model(2)}, [folder], resamples=0)  # unknown spaces
    assert [r["same_space"] for r in result["results"]] == [True, False, True]


def test_a_bin_without_names_has_no_all_pairs(tmp_path: Path) -> None:
    result = evaluate({"m": model()}, [write_bin(tmp_path / "x.bin", names=False)], resamples=5)
    assert [r["protocol"] for r in result["results"]] == ["pairs"]
    assert result["results"][0]["settings"]["resampled"] == "pairs"


def test_a_data_set_object_and_a_subset(folder: Path) -> None:
    dataset = open_dataset(folder).subset(range(20))
    result = evaluate({"m": model()}, {"hold-out": dataset}, resamples=0)
    assert result["results"][0]["pairs"] == 190
    assert result["results"][0]["data"] == dataset.fingerprint


def test_an_unreadable_image_in_a_bin_is_an_error(tmp_path: Path) -> None:
    path = write_bin(tmp_path / "x.bin", names=False, damage=7)
    with pytest.raises(UserError, match=r"x\.bin"):
        evaluate({"m": model()}, [path])
    dataset = open_dataset(path, max_unreadable=0.5)
    with pytest.raises(UserError, match="1 images cannot be read"):
        evaluate({"m": model()}, [dataset])


def test_wrong_options(folder: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'concat'"):
        evaluate({"m": model()}, [folder], flip="concatenate")
    with pytest.raises(UsageError, match="threshold"):
        evaluate({"m": model()}, [folder], threshold="best")
    with pytest.raises(UsageError, match="between 0 and 1"):
        evaluate({"m": model()}, [folder], fars=[10])


# ../shared/data/README.md: accuracy without flip and with the flip sum, TAR at FAR 1e-3 without flip
LFW = {
    "mobilefacenet128": (0.99417, 0.99400, 0.978),
    "mobilefacenet512": (0.99183, 0.99300, 0.977),
    "resnet128": (0.99083, 0.99233, 0.962),
    "mobileface256": (0.94150, 0.94183, 0.699),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LFW)
def test_the_lfw_figures_of_the_shared_models(name: str, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = load_model(shared / "models" / f"{name}.onnx")
    lfw = shared / "verification" / "lfw.bin"
    summed, plain = (
        evaluate({name: network}, [lfw], flip=flip, cache=tmp_path, resamples=0)["results"][::-1]
        for flip in ("sum", "none")
    )
    without_flip, flip_sum, tar = LFW[name]
    assert plain[0]["accuracy"] == pytest.approx(without_flip, abs=5e-4)
    assert summed[0]["accuracy"] == pytest.approx(flip_sum, abs=5e-4)
    # Three impostor pairs decide it; the table was made on a grid of thresholds, which moves resnet128 by 4 pairs.
    assert plain[0]["tar_at_far"]["1e-3"]["value"] == pytest.approx(tar, abs=1.5e-3)
    assert (plain[1]["images"], plain[1]["genuine"], plain[1]["pairs"]) == (7701, 8101, 7701 * 7700 // 2)


def test_two_sets_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "elsewhere" / "faces")
    with pytest.raises(UsageError, match="two sets are called 'faces'"):
        evaluate({"student": model(1)}, [folder, other], resamples=0)


@pytest.mark.parametrize(("people", "photos", "lacking"), [(6, 1, "the same person"), (1, 6, "different people")])
def test_a_set_without_pairs_of_one_kind_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], people: int, photos: int, lacking: str
) -> None:
    whole = write_folder(tmp_path / "faces")
    for person in sorted(whole.iterdir())[people:]:
        shutil.rmtree(person)
    for person in whole.iterdir():
        for photo in sorted(person.iterdir())[photos:]:
            photo.unlink()
    evaluate({"model": model(1)}, [whole], resamples=0)
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"faces, all-pairs: no pairs of {lacking} in this set, so its rates cannot be measured" in said
