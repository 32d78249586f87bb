"""Every kind of set through evaluate(): what it opens as, which protocols it has, that the numbers are its own."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation_toys import PEOPLE, PHOTOS, model, photo, write_bin, write_folder
from facedistill.data.dataset import open_dataset
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import evaluate, open_sets
from facedistill.evaluation.calibration import thresholds_of
from facedistill.evaluation.options import Resolution
from facedistill.evaluation.protocols.identification import identify
from facedistill.evaluation.protocols.template_verification import TemplatePairs, verify_templates
from facedistill.evaluation.protocols.templates import template_vectors
from facedistill.evaluation.run import faces
from facedistill.evaluation.sets import GallerySet, LabelledSet, TemplateSet, set_name
from facedistill.head.classifier import Classifier
from facedistill.models.embed import embed_dataset
from facedistill.results.stored import load_evaluations, load_logs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "faces")


@pytest.fixture
def ijb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    importlib.import_module("ijb_from_faces").write_ijb(open_dataset(folder), folder.parent / "ijb")
    return folder.parent / "ijb"


def two() -> dict[str, Any]:
    return {"student": model(1, noise=0.7, space="s"), "teacher": model(2, noise=0.1, space="s")}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("{}/b.csv", "b"),
        ("labels:table={}/b.csv,images={}/a.b/im,image=image", "b"),
        ("labels:images={}/im,table={}/b,c.csv,image=image", "b,c"),
        ("features:{}/b.npz", "b"),
        ("unlabelled:{}/b", "b"),
        ("synthetic:identities=3,images=2,size=16", "synthetic:identities=3,images=2,size=16"),
    ],
)
def test_sets_are_called_after_their_files(spec: str, name: str, tmp_path: Path) -> None:
    """Two tables that share a folder of images had one name."""
    assert set_name(spec.replace("{}", str(tmp_path))) == name


def test_protocols_are_asked_for_by_name(folder: Path) -> None:
    asked = ["retrieval", "identification"]
    result = evaluate(two(), [folder], protocols=asked, resamples=5)
    assert [r["protocol"] for r in result["results"]] == [p for p in asked for _ in range(3)]
    retrieval, identification = result["results"][0], result["results"][3]
    assert retrieval["queries"] == PEOPLE * PHOTOS
    assert (identification["mated"], identification["gallery_size"]) == (PEOPLE * (PHOTOS - 1), PEOPLE)
    assert {d["protocol"] for d in result["differences"]} == set(asked)
    with pytest.raises(UsageError, match=r"did you mean 'retrieval'.*faces is measured by"):
        evaluate(two(), [folder], protocols=["retrievel"])


def test_classification_uses_the_gallery_models_classifier(folder: Path) -> None:
    models = two()
    names = [f"p{person:02}" for person in range(PEOPLE)]
    table = embed_dataset(models["teacher"], open_dataset(folder))
    centres = np.stack([table.fused("sum")[table.labels == c].mean(0) for c in range(PEOPLE)])
    models["teacher"].classifier = Classifier(torch.from_numpy(centres), names)
    models["student"].classifier = models["teacher"].classifier
    result = evaluate(models, [folder], protocols=["classification"], resamples=5)
    top1 = {(r["probe"], r["gallery"]): r["top1"]["value"] for r in result["results"]}
    student = embed_dataset(models["student"], open_dataset(folder)).fused("sum")
    rows = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    assert top1["student", "teacher"] == pytest.approx(((student @ rows.T).argmax(1) == table.labels).mean())
    models["teacher"].classifier = Classifier(torch.from_numpy(centres[1:]), names[1:])
    results = evaluate(models, [folder], protocols=["classification"], resamples=5)["results"]
    assert ["top1" in r for r in results] == [True, False, False]
    assert [r["settings"]["classifier"] for r in results] == ["teacher", *["none: it lacks p00"] * 2]
    without = evaluate(two(), [folder], protocols=["classification"], resamples=5)
    assert {r["settings"]["classifier"] for r in without["results"]} == {"none: the gallery's model has none"}
    assert all("centre_top1" in r and "top1" not in r for r in without["results"])


def test_low_resolution_probes_and_both_sides(folder: Path) -> None:
    result = evaluate(two(), [folder], resolutions=[Resolution(4)], resamples=5)
    seen = [(r["probe"], r["gallery"], r["settings"].get("resolution")) for r in result["results"]]
    pairs = [("student", "student"), ("student", "teacher"), ("teacher", "teacher")]
    where = [None, {"probe": 4}, {"probe": 4, "gallery": 4}]
    assert seen == [(*pair, at) for at in where for pair in pairs]
    by = {(r["probe"], r["gallery"], str(r["settings"].get("resolution"))): r for r in result["results"]}
    full, high_low, low_low = (by["teacher", "teacher", str(at)] for at in where)
    assert high_low["settings"]["directions"] == "both, pooled"
    assert high_low["pairs"] == 2 * full["pairs"] == 2 * low_low["pairs"]
    threshold = full["tar_at_far"]["1e-2"]["threshold"]
    assert high_low["at_gallery_threshold"]["1e-2"]["threshold"] == threshold
    assert low_low["eer"] != full["eer"]
    crossed = by["student", "teacher", str(where[2])]  # calibrated where its gallery is: at low resolution
    assert crossed["at_gallery_threshold"]["1e-2"]["threshold"] == low_low["tar_at_far"]["1e-2"]["threshold"]
    assert {str(d.get("resolution")) for d in result["differences"]} == {str(at) for at in where}


def test_a_gallery_with_distractors_from_other_folders(folder: Path, tmp_path: Path) -> None:
    enrolled = write_folder(tmp_path / "enrolled", range(8), 1)
    strangers = write_folder(tmp_path / "strangers", range(50, 60), 2)
    sets = open_sets([folder], gallery=str(enrolled), distractors=str(strangers))
    assert isinstance(sets["faces"], GallerySet)
    teacher = two()["teacher"]
    (result,) = evaluate({"teacher": teacher}, sets, resamples=5, cache=tmp_path / "cache")["results"]
    assert (result["mated"], result["non_mated"]) == (8 * PHOTOS, (PEOPLE - 8) * PHOTOS)
    assert (result["gallery_size"], result["distractors"]) == (28, 20)
    probe, gallery, other = (embed_dataset(teacher, open_dataset(p)) for p in (folder, enrolled, strangers))
    direct = identify(
        probe.fused("sum"), probe.labels, gallery.fused("sum"), gallery.labels, distractors=[other.fused("sum")]
    )
    assert result["rank"]["1"]["value"] == direct.rank[1].value
    assert result["curves"]["cmc"] == direct.cmc.tolist()


def test_tinyface_is_found_by_its_folders(tmp_path: Path) -> None:
    for name, files in (
        ("Gallery_Match", ["1_1", "2_1"]),
        ("Probe", ["1_2", "2_2", "2_3"]),
        ("Gallery_Distractor", ["x", "y"]),
    ):
        (tmp_path / "tiny" / name).mkdir(parents=True)
        for k, file in enumerate(files):
            (tmp_path / "tiny" / name / f"{file}.png").write_bytes(photo(int(file[0]) if file[0] < "a" else 7 + k, k))
    (result,) = evaluate({"m": model()}, [tmp_path / "tiny"], resamples=0)["results"]
    assert (result["protocol"], result["probes"], result["gallery_size"]) == ("identification", 3, 4)


def test_templates_of_an_ijb_folder(ijb: Path) -> None:
    models = two()
    result = evaluate(models, [ijb], resamples=5, weight_by_norm=False)
    assert [r["protocol"] for r in result["results"]] == ["templates 1:1"] * 3 + ["templates 1:N"] * 3
    first, _, teacher = result["results"][:3]
    assert first["settings"]["weight_by_norm"] is False
    assert first["settings"]["templates_without_image"] == 0
    (opened,) = open_sets([ijb]).values()
    assert isinstance(opened, TemplateSet)
    source = opened.source
    vectors = embed_dataset(models["teacher"], opened.parts["images"]).vectors
    ids, unit = template_vectors(vectors, source.template, source.media, source.detector_score, weight_by_norm=False)
    direct = verify_templates(unit, unit, ids, TemplatePairs.of(source.pairs()), resamples=5)
    assert {k: v for k, v in teacher.items() if k in direct.to_json()} == direct.to_json()
    (ijb / "loose_crop" / "1.jpg").write_bytes(b"")  # unreadable: its template lives on by its other image
    opened = TemplateSet(type(source)(ijb))
    opened.parts["images"].max_unreadable = 1
    again = evaluate(models, {"ijb": opened}, resamples=0)["results"][0]
    assert again["images"] == first["images"] - 1


def test_pair_list_equals_the_bin_of_the_same_pairs(tmp_path: Path) -> None:
    file = write_bin(tmp_path / "x.bin", names=False)
    (bin_set,) = open_sets([file]).values()
    assert isinstance(bin_set, LabelledSet) and bin_set.pair_list is not None
    pairs = bin_set.pair_list
    for i in range(len(pairs)):
        (tmp_path / f"{i}.png").write_bytes(bytes(pairs.read(i)))
    rows = [f"{a}.png,{b}.png,{int(s)}" for (a, b), s in zip(pairs.pairs.tolist(), pairs.same.tolist(), strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n")
    a, b = (evaluate({"m": model()}, [f], resamples=5)["results"][0] for f in (file, tmp_path / "x.csv"))
    assert {k: v for k, v in a.items() if k != "data"} == {k: v for k, v in b.items() if k != "data"}


def test_a_folder_of_bins_is_a_group(tmp_path: Path) -> None:
    (tmp_path / "rfw").mkdir()
    for name in ("African", "Asian"):
        write_bin(tmp_path / "rfw" / f"{name}.bin", names=False)
    result = evaluate({"m": model()}, [tmp_path / "rfw"], resamples=0)
    (group,) = result["groups"]
    accuracy = {r["set"]: r["accuracy"] for r in result["results"]}
    assert group["sets"] == accuracy
    assert set(accuracy) == {"rfw/African", "rfw/Asian"}
    assert group["mean"] == pytest.approx(np.mean(list(accuracy.values())))


def test_differences_and_compatibility(folder: Path) -> None:
    models = {"student": model(1, noise=0.2), "baseline": model(3, dim=2), "teacher": model(2, noise=0.1)}
    result = evaluate(models, [folder], resamples=50)
    own = {(r["probe"], r["gallery"]): r["tar_at_far"]["1e-2"] for r in result["results"]}
    found = {(tuple(d["a"]), tuple(d["b"])): d["of"]["tar_at_far.1e-2"] for d in result["differences"]}
    s, t = ("student", "student"), ("teacher", "teacher")
    assert found[s, t]["value"] == pytest.approx(own[s]["value"] - own[t]["value"])
    assert found[("student", "teacher"), t].keys() == {"value", "ci95", "distinguishable"}
    (compatible,) = result["compatibility"]
    assert (compatible["probe"], compatible["gallery"]) == ("student", "teacher")
    assert compatible["of"]["tar_at_far.1e-2"]["compatible"] is True
    assert "differences" not in evaluate(models, [folder], resamples=0)


def test_mcnemar_stands_beside_the_pairs(tmp_path: Path) -> None:
    result = evaluate(two(), [write_bin(tmp_path / "x.bin", names=False)], resamples=20)
    tests = [d.get("mcnemar") for d in result["differences"]]
    assert tests[0] is not None and 0 <= tests[0]["p"] <= 1
    assert tests[1:] == [None, None]  # two directions against one


def test_worst_errors_and_their_faces(folder: Path) -> None:
    sets = open_sets([folder])
    result = evaluate({"m": model(noise=1.5)}, sets, resamples=0, errors=True)
    (errors,) = result["errors"]
    worst = errors["false_accepts"][0]
    table = embed_dataset(model(noise=1.5), open_dataset(folder))
    unit = table.fused("sum")
    score = np.where(table.labels[:, None] == table.labels, -2, unit @ unit.T)
    assert worst["score"] == pytest.approx(score.max(), abs=1e-5)
    images = faces(result, sets)
    assert images["faces", worst["a"]][:2] == b"\xff\xd8"
    assert "errors" not in evaluate({"m": model()}, sets, resamples=0)


def test_worst_errors_of_a_list_of_pairs(tmp_path: Path) -> None:
    sets = open_sets([write_bin(tmp_path / "x.bin", names=False)])
    result = evaluate({"m": model(noise=1.5)}, sets, resamples=0, errors=True)
    (errors,) = result["errors"]
    source = open_dataset(tmp_path / "x.bin").source
    assert isinstance(source, VerificationSet)
    unit = embed_dataset(model(noise=1.5), open_dataset(tmp_path / "x.bin")).fused("sum")
    scores = np.einsum("nd,nd->n", *(unit[source.pairs[:, k]] for k in range(2)))
    assert errors["false_accepts"][0]["score"] == pytest.approx(scores[~source.same].max(), abs=1e-5)
    assert errors["false_rejects"][0]["score"] == pytest.approx(scores[source.same].min(), abs=1e-5)
    assert len(faces(result, sets)) > 1


def test_latency_is_measured_when_asked_for(folder: Path) -> None:
    assert evaluate({"m": model()}, [folder], resamples=0, latency=True)["models"]["m"]["latency_ms"] > 0


def test_thresholds_for_the_model_folder(folder: Path) -> None:
    models = two()
    result = evaluate(models, [folder], resamples=20)
    found = thresholds_of(result, models, [0.01])
    assert [(t["probe"], t["gallery"]) for t in found] == [
        (models["student"].fingerprint(), models[g].fingerprint()) for g in ("student", "teacher")
    ]
    assert found[1]["value"] == result["results"][1]["tar_at_far"]["1e-2"]["threshold"]
    assert found[1]["interval"][0] <= found[1]["value"] <= found[1]["interval"][1]
    with pytest.raises(UserError, match=r"no threshold for a false-accept rate of 1e-06"):
        thresholds_of(result, models, [1e-6])
    with pytest.raises(UserError, match="no set was measured"):
        thresholds_of(evaluate(models, [folder], protocols=["retrieval"], resamples=0), models, [0.01])


def test_stored_evaluations(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "evaluation.json").write_text('{"models": {}, "results": []}')
    (tmp_path / "runs" / "a" / "log.jsonl").write_text('{"step": 1, "epoch": 0}\n{"st')  # cut short by a kill
    (tmp_path / "c.json").write_text('{"models": {}, "results": []}')
    places = [tmp_path / "runs", tmp_path / "c.json"]
    assert list(load_evaluations(places)) == ["a", "b", "c"]
    assert load_logs(places) == {"a": [{"step": 1, "epoch": 0}]}
    (tmp_path / "c.json").write_text("{}")
    for wrong in (tmp_path / "c.json", tmp_path / "nothing"):
        with pytest.raises(UserError, match="expected a finished run"):
            load_evaluations([wrong])
