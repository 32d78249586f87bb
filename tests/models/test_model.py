"""Model: what happens to pixels, and the folder."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facedistill.backbones import Backbone, create_backbone
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import InputSpec, Model, make_space
from facedistill.models.thresholds import save_thresholds

SIZE, DIM = 32, 16


class Mean(Backbone):
    """Embeds an image as the mean of each channel: what reaches a network can be read off it."""

    def __init__(self) -> None:
        super().__init__(3, SIZE)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x.mean((2, 3)), (x,)


def pixels(count: int = 3, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def student(**options: Any) -> Model:
    model = Model(create_backbone("mobilefacenet", DIM, SIZE, width=0.125), **options)
    with torch.no_grad():  # running statistics that are not the initial ones
        model.train()(pixels(8))
    return model.eval()


def classifier(classes: int = 5, dim: int = DIM) -> Classifier:
    names = [f"person {i} é" for i in range(classes)]
    return Classifier(torch.randn(classes, dim), names, "centres", torch.arange(1, classes + 1))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_colour_order_and_normalisation_by_the_definition(colour: str) -> None:
    spec = InputSpec(SIZE, colour, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))
    images = pixels()
    planes = images.float() if colour == "rgb" else images.float()[:, [2, 1, 0]]
    expected = (planes - torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    model = Model(Mean(), spec)
    torch.testing.assert_close(model.normalise(images), expected)
    torch.testing.assert_close(model(images), expected.mean((2, 3)))
    torch.testing.assert_close(model(images.float()), model(images))


def test_float_pixels_are_not_changed_in_place() -> None:
    images = pixels().float()
    before = images.clone()
    Model(Mean(), InputSpec(SIZE, mean=(0.0,), std=(2.0,)))(images)
    assert torch.equal(images, before)


def test_other_sizes_are_resized_with_antialias() -> None:
    model = Model(Mean(), InputSpec(SIZE, mean=(0.0,), std=(1.0,)))
    stripes = torch.zeros(1, 3, 4 * SIZE, 4 * SIZE, dtype=torch.uint8)
    stripes[..., ::4] = 200  # without antialias this aliases to 0 or 200
    out = model.normalise(stripes)
    assert out.shape[-2:] == (SIZE, SIZE)
    assert (out[..., 2:-2, 2:-2] - 50).abs().max() < 15


def test_projection_then_offset() -> None:
    projection, offset = nn.Linear(3, 2, bias=False), torch.tensor([5.0, -1.0])
    model = Model(Mean(), InputSpec(SIZE), offset=offset, projection=projection)
    images = pixels()
    assert model.embedding_dim == 2
    torch.testing.assert_close(model(images), Model(Mean(), InputSpec(SIZE))(images) @ projection.weight.T - offset)
    torch.testing.assert_close(model.outputs(images).embedding, model(images))
    assert model.outputs(images).features[0].shape == (3, 3, SIZE, SIZE)
    assert model.outputs(images, features=False).features == ()


def test_flips() -> None:
    model, images = student(), pixels()
    one, two = model(images), model(images.flip(-1))
    unit = nn.functional.normalize
    torch.testing.assert_close(model.embed(images, "sum"), unit(one + two))
    torch.testing.assert_close(model.embed(images, "concat"), unit(torch.cat([one, two], 1)))
    torch.testing.assert_close(model.embed(images, "none"), unit(one))
    with pytest.raises(UsageError, match="did you mean 'concat'"):
        model.embed(images, "concatenate")


def test_embed_runs_in_eval_mode_and_restores_the_mode() -> None:
    model = student().train()
    statistics = copy.deepcopy(model.state_dict())
    images = pixels(4)  # in training mode an embedding would depend on the rest of its batch
    torch.testing.assert_close(model.embed(images)[:1], model.embed(images[:1]))
    assert model.training and all(torch.equal(v, statistics[k]) for k, v in model.state_dict().items())


def test_pixels_of_0_to_1_are_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"0\.\.255"):
        student().embed(torch.rand(2, 3, SIZE, SIZE))


def test_images_of_another_layout_are_refused() -> None:
    with pytest.raises(UserError, match=r"\[2, 32, 32, 3\]; expected N x 3 x H x W"):
        student()(torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8))


def test_cost_counts_backbone_and_projection() -> None:
    plain, projected = student(), student(projection=nn.Linear(DIM, 8, bias=False))
    assert projected.parameters_count() == plain.parameters_count() + DIM * 8
    plain_macs, projected_macs = plain.macs(), projected.macs()
    assert plain_macs and projected_macs == plain_macs + DIM * 8


@pytest.mark.parametrize(
    "parts",
    [
        {"classifier": classifier(dim=8)},
        {"offset": torch.zeros(8)},
        {"projection": nn.Linear(8, DIM, bias=False)},
        {"projection": nn.Linear(DIM, 8, bias=False), "classifier": classifier()},
        {"embedding_dim": 8},
    ],
)
def test_dimensions_that_do_not_fit(parts: dict) -> None:
    with pytest.raises(UserError, match="8"):
        Model(create_backbone("mobilefacenet", DIM, SIZE, width=0.125), **parts)


def test_input_spec_that_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"64.*32"):
        Model(Mean(), InputSpec(64))
    for options in ({"colour": "grb"}, {"mean": (1.0, 2.0)}, {"std": (0.0,)}):
        with pytest.raises(UsageError):
            InputSpec(SIZE, **options)


def test_thresholds_of_processes_that_write_at_once_all_remain(tmp_path: Path) -> None:
    save_model(student(), tmp_path / "m")
    code = """
import sys
from facedistill.models import save_thresholds
threshold = {"far": 1e-3, "value": 0.4, "interval": [0.3, 0.5], "gallery": "b"}
for n in range(10):
    save_thresholds(sys.argv[1], [threshold | {"probe": f"{sys.argv[2]}{n}"}])
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "m"), name]) for name in "xyz"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert {t["probe"] for t in load_model(tmp_path / "m").thresholds} == {f"{a}{n}" for a in "xyz" for n in range(10)}


def test_thresholds_are_added_and_replaced(tmp_path: Path) -> None:
    save_model(student(), tmp_path / "run" / "model")
    first = {"far": 1e-3, "value": 0.41234, "interval": [0.3, 0.5], "probe": "a", "gallery": "b", "flip": "sum"}
    save_thresholds(tmp_path / "run", [first, first | {"gallery": "c"}])
    save_thresholds(tmp_path / "run" / "model", [first | {"value": 0.45}, first | {"far": 1e-4}])
    kept = load_model(tmp_path / "run").thresholds
    assert kept == [first | {"gallery": "c"}, first | {"value": 0.45}, first | {"far": 1e-4}]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| 0.001 | 0.4500 | 0.3000 to 0.5000 | `a` | `b` | sum |" in card and card.count("| 0.001 |") == 2
    with pytest.raises(UserError):
        save_thresholds(tmp_path / "nowhere", [first])


def test_model_folder_keeps_everything(tmp_path: Path) -> None:
    model = student(
        input=InputSpec(SIZE, "bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        classifier=classifier(dim=8),
        offset=torch.randn(8),
        projection=nn.Linear(DIM, 8, bias=False),
        made={"by": "a test", "note": "naïve"},
        thresholds=[{"far": 1e-3, "value": 0.4, "interval": [0.3, 0.5], "probe": "a", "gallery": "b"}],
    )
    save_model(model, tmp_path / "model")
    torch.manual_seed(7)
    expected_draw = torch.rand(1)
    torch.manual_seed(7)
    again = load_model(tmp_path / "model")
    assert torch.equal(torch.rand(1), expected_draw), "loading drew random numbers"
    images = pixels()
    assert torch.equal(again(images), model(images)) and not again.training
    assert (again.input, again.made, again.thresholds) == (model.input, model.made, model.thresholds)
    assert again.space == model.space == make_space(again)
    assert again.classifier is not None and model.classifier is not None
    assert again.classifier.class_names == model.classifier.class_names
    assert again.classifier.counts is not None
    assert again.classifier.origin == "centres" and torch.equal(again.classifier.counts, torch.arange(1, 6))
    torch.testing.assert_close(again.classifier.weight, model.classifier.weight)
    assert load_model(tmp_path / "model", classifier=False).classifier is None
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "classes.txt", "classifier.safetensors", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_config_says_what_the_model_is_and_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    model = student()
    save_model(model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architecture"] == "mobilefacenet"
    assert config["options"] == {"embedding_dim": DIM, "input_size": SIZE, "width": 0.125}
    assert config["input"] == {"size": SIZE, "colour": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}
    assert (config["parameters"], config["macs"]) == (model.parameters_count(), model.macs())
    assert not {"offset", "projection", "classifier"} & set(config)


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    model = student().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_model(model, tmp_path / "model")
    torch.testing.assert_close(load_model(tmp_path / "model")(pixels()).shape, (3, DIM))
    assert load_model(tmp_path / "model").fingerprint() == model.fingerprint()


def test_a_run_stands_for_its_model(tmp_path: Path) -> None:
    model = student()
    save_model(model, tmp_path / "run" / "model")
    assert load_model(tmp_path / "run").space == model.space


def test_the_card_tells_its_reader_what_to_do(tmp_path: Path) -> None:
    model = student(classifier=classifier(), made={"method": "proxylesskd"})
    save_model(model, tmp_path / "phone")
    card = (tmp_path / "phone" / "README.md").read_text()
    for needed in (
        'fd.load_model("phone")',
        "112x112",
        str(model.space),
        f"{model.parameters_count():,}",
        "proxylesskd",
    ):
        assert needed in card
    assert "5 classes" in card and "Licence" in card


def test_an_embeddings_only_teacher_loads_and_says_that_it_cannot_run(tmp_path: Path) -> None:
    save_model(Model(None, classifier=classifier(), space="abc"), tmp_path / "teacher")
    config = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert config["backbone"] is None and "macs" not in config
    teacher = load_model(tmp_path / "teacher")
    assert teacher.embedding_dim == DIM and teacher.space == "abc" and len(teacher.classifier or ()) == 5
    with pytest.raises(UserError, match="embeddings only"):
        teacher.embed(pixels())


def test_space_depends_on_weights_input_and_offset() -> None:
    model = student()
    spaces = {make_space(model)}
    assert make_space(copy.deepcopy(model)) in spaces and make_space(pickle.loads(pickle.dumps(model))) in spaces
    other = copy.deepcopy(model)
    next(other.parameters()).data.view(-1)[0] += 1e-3
    spaces.add(make_space(other))
    spaces.add(make_space(Model(model.backbone, InputSpec(SIZE, "bgr"))))
    spaces.add(make_space(Model(model.backbone, offset=torch.full((DIM,), 1e-3))))
    assert len(spaces) == 4


def test_subtracting_the_mean_founds_a_new_space_without_the_old_classifier() -> None:
    model = student(classifier=classifier(), offset=torch.ones(DIM))
    before, images = model.fingerprint(), pixels()
    expected = model(images) - 2
    model.subtract_mean(torch.full((DIM,), 2.0))
    torch.testing.assert_close(model(images), expected)
    assert model.space == make_space(model) != before and model.classifier is None


def test_saving_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    save_model(student(), tmp_path / "model")
    second = student(projection=nn.Linear(DIM, 8, bias=False))
    save_model(second, tmp_path / "model")
    assert load_model(tmp_path / "model").embedding_dim == 8
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a model folder"):
        save_model(second, tmp_path / "photos")
    assert (tmp_path / "photos" / "me.jpg").exists()


def test_a_full_disk_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = student()
    save_model(first, tmp_path / "model")

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("facedistill.models.tensors.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        save_model(student(), tmp_path / "model")
    assert load_model(tmp_path / "model").space == first.space
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_names_with_line_breaks_and_foreign_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line break"):
        save_model(student(classifier=Classifier(torch.randn(2, DIM), ["a", "b\nc"])), tmp_path / "model")
    with pytest.raises(UserError, match="create_backbone"):
        save_model(Model(Mean()), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    good = tmp_path / "good"
    save_model(student(classifier=classifier()), good)

    def broken(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    with pytest.raises(UserError, match=r"none: no such folder"):
        load_model(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path / "empty")

    folder = broken("json")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        load_model(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="JSON"):
        load_model(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="embedding_dim"):
        load_model(folder)

    folder = broken("keys")
    edit(folder, schema=99)
    with pytest.raises(UserError, match="schema 99"):
        load_model(folder)
    edit(folder, schema=1, architecture="mobilefacenett")
    with pytest.raises(UserError, match="did you mean 'mobilefacenet'"):
        load_model(folder)
    edit(folder, architecture="mobilefacenet", input={"colour": "rgb"}, made=None)
    with pytest.raises(UserError):
        load_model(folder)

    folder = broken("shape")
    edit(folder, options={"embedding_dim": DIM, "input_size": SIZE, "width": 0.25})
    with pytest.raises(UserError, match=r"tensor 'backbone\.stem\.0\.0\.weight' has shape \[8, .*expected \[16, "):
        load_model(folder)

    folder = broken("weights")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "backbone.output.linear.weight"}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"'backbone\.output\.linear\.weight' is missing"):
        load_model(folder)
    save_file(tensors | {"more": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected tensors .'more'"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 7)
    with pytest.raises(UserError, match="damaged"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="missing"):
        load_model(folder)

    folder = broken("classes")
    (folder / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"2 names, .* 5 rows"):
        load_model(folder)


def test_bare_onnx_file(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = load_model(shared / "models" / "mobilefacenet128.onnx")
    assert "taken as pixels 0..255, RGB, normalisation inside" in capsys.readouterr().err
    images = pixels(2, 112)
    assert model.embed(images).shape == (2, 128)
    save_model(model, tmp_path / "teacher")
    again = load_model(tmp_path / "teacher")
    assert (again.space, again.made) == (model.space, model.made)
    assert torch.equal(again(images), model(images))
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        load_model(tmp_path / "none.onnx")


def test_classes_may_be_named_after_folders_of_any_bytes(tmp_path: Path) -> None:
    names = ["Andr\udce9", "bob"]  # a folder's name in Latin-1, as Python gives it
    model = student(classifier=Classifier(torch.eye(2, DIM), names), made={"unreadable": [f"{names[0]}/1.jpg"]})
    save_model(model, tmp_path / "model")
    found = load_model(tmp_path / "model")
    assert found.classifier is not None and found.classifier.class_names == names and found.made == model.made


def test_a_flipped_bit_of_the_weights_is_noticed(tmp_path: Path) -> None:
    folder, name = tmp_path / "model", "model.safetensors"
    save_model(student(), folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1  # the number stays finite
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: not as it was saved .its checksum differs"):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]  # a folder of an earlier version
    (folder / "config.json").write_text(json.dumps(config))
    load_model(folder)


def test_weights_in_a_folder_are_finite_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for value, reason in ((torch.nan, "holds NaN or infinity"), (torch.inf, "holds NaN or infinity")):
        model = student()
        with torch.no_grad():
            next(model.parameters())[0] = value
        save_model(model, folder)
        with pytest.raises(UserError, match=rf"tensor 'backbone\S*' {reason}"):
            load_model(folder)
    save_model(student(classifier=classifier()), folder)
    save_file({"weight": torch.ones(5, DIM, dtype=torch.int8)}, folder / "classifier.safetensors")
    with pytest.raises(UserError, match="no floating-point rows"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"embedding_dim": 10**9, "input_size": SIZE, "width": 0.125}},
        {"options": {"embedding_dim": DIM, "input_size": SIZE, "width": 1e6}},
        {"options": {"embedding_dim": DIM, "input_size": SIZE, "width": 1e15}},
        {"options": {"embedding_dim": -1, "input_size": SIZE, "width": 0.125}},
        {"options": {"embedding_dim": DIM, "input_size": 16 * 10**6, "width": 0.125}},
        {"projection": {"in": 10**6, "out": 10**6}},
        {"embedding_dim": 0},
        {"embedding_dim": "16"},
        {"input": []},
        {"input": {"size": SIZE, "colour": "rgb", "mean": ["a"], "std": [1]}},
        {"input": {"size": SIZE, "colour": "rgb", "mean": [float("nan")], "std": [1]}},
        {"offset": [float("inf")] * DIM},
        {"offset": "x"},
        {"space": None},
        {"made": 3},
        {"thresholds": {}},
        {"classifier": []},
        {"architecture": 5},
    ],
    ids=str,
)
def test_what_config_json_claims_is_checked_before_it_is_made(tmp_path: Path, change: dict) -> None:
    folder = tmp_path / "model"
    save_model(student(), folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json|model\.safetensors") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_models_files_have_the_permissions_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_model(student(classifier=classifier()), tmp_path / "model")
    finally:
        os.umask(before)
    files = list((tmp_path / "model").iterdir())
    assert len(files) == 5 and {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~mask}


@pytest.mark.parametrize(
    "values", [{"mean": (torch.nan,)}, {"std": (torch.inf,)}, {"std": (0.0,)}, {"mean": (torch.inf,)}]
)
def test_a_mean_and_std_are_finite(values: dict) -> None:
    with pytest.raises(UsageError, match="expected 1 or 3 numbers"):
        InputSpec(SIZE, **values)
