"""Importers, on files written by torch.save in the layout of arcface_torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facedistill.backbones import create_backbone
from facedistill.data.dataset import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.head.margins import ArcFace, CosFace
from facedistill.head.starts import fit_classifier
from facedistill.models.arcface_torch import Names
from facedistill.models.embed import embed_dataset
from facedistill.models.folder import load_model, save_model
from facedistill.models.importers import import_model
from tiny_world import Tiny

DIM = 512


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_arcface_torch_run: Callable[..., None]) -> Path:
    """A run as arcface_torch leaves it: 3 ranks, 10 classes (4, 3, 3), rows of any norm, the full-size IResNet-18."""
    folder = tmp_path_factory.mktemp("arcface_torch")
    torch.manual_seed(0)
    write_arcface_torch_run(folder, create_backbone("iresnet18", DIM).state_dict(), rows(10).split([4, 3, 3]))
    return folder


def rows(classes: int, dim: int = DIM) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(classes, dim, generator=generator) * torch.linspace(0.1, 9, classes)[:, None]


def unit(weight: Tensor) -> Tensor:
    return nn.functional.normalize(weight, dim=1)


def test_run_folder_gives_backbone_and_merged_classifier(run: Path, tmp_path: Path) -> None:
    names = [f"id{i}" for i in range(10)]
    model = import_model(run, classes=names)
    assert model.backbone is not None and model.backbone.spec["name"] == "iresnet18"
    state = torch.load(run / "backbone.pth", weights_only=True)
    assert all(torch.equal(v, state[k]) for k, v in model.backbone.state_dict().items())
    assert model.classifier is not None and model.classifier.class_names == names
    assert model.classifier.origin == "teacher"
    torch.testing.assert_close(model.classifier.weight, unit(rows(10)))
    assert (model.input.colour, model.input.mean, model.input.std) == ("rgb", (127.5,) * 3, (127.5,) * 3)
    save_model(model, tmp_path / "teacher")
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    assert torch.equal(load_model(tmp_path / "teacher")(images), model(images))


def test_state_dict_alone_and_with_a_classifier_beside_it(run: Path) -> None:
    assert import_model(run / "backbone.pth").classifier is None
    model = import_model(run / "backbone.pth", classifier=run / "checkpoint_gpu_1.pt")  # one shard stands for all
    assert model.classifier is not None and model.classifier.class_names == [str(i) for i in range(10)]


def test_one_checkpoint_brings_all_its_shards(run: Path) -> None:
    model = import_model(run / "checkpoint_gpu_0.pt")
    assert model.classifier is not None
    torch.testing.assert_close(model.classifier.weight, unit(rows(10)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of a narrow IResNet-18 of 16 dimensions at 32 pixels, saved from a DDP module."""
    path = tmp_path_factory.mktemp("small") / "backbone.pth"
    state = create_backbone("iresnet18", 16, 32, width=0.125).state_dict()
    torch.save({f"module.{k}": v for k, v in state.items()}, path)
    return path


def test_width_size_and_dimension_are_found(small: Path) -> None:
    model = import_model(small, mean=[0.0], std=[255.0], colour="bgr")
    assert model.backbone is not None
    assert model.backbone.spec == {
        "name": "iresnet18", "options": {"embedding_dim": 16, "input_size": 32, "width": 0.125},
    }  # fmt: skip
    assert (model.input.colour, model.input.mean, model.input.std) == ("bgr", (0.0,) * 3, (255.0,) * 3)


@pytest.mark.parametrize("name", ["softmax_fc_gpu_{}.pt", "rank_{}_softmax_weight.pt"])
def test_shards_are_merged_in_numeric_order(small: Path, tmp_path: Path, name: str) -> None:
    weight = rows(24, 16)
    for rank, shard in enumerate(weight.split(2)):  # 12 ranks: 10 sorts before 2 as text
        torch.save({"weight": shard.clone()} if "fc" in name else shard.clone(), tmp_path / name.format(rank))
    model = import_model(small, classifier=tmp_path)
    assert model.classifier is not None
    torch.testing.assert_close(model.classifier.weight, unit(weight))
    (tmp_path / name.format(7)).unlink()
    with pytest.raises(UserError, match="rank 7 is missing"):
        import_model(small, classifier=tmp_path)


def test_a_missing_last_shard_is_found_by_the_class_names(run: Path) -> None:
    with pytest.raises(UserError, match="10 classes, but 13 class names"):
        import_model(run, classes=[str(i) for i in range(13)])


@pytest.mark.parametrize(
    "content",
    [
        lambda w: w,
        lambda w: {"weight": w},
        lambda w: {"kernel": w.T.contiguous()},
        lambda w: {"anything": w.T.contiguous(), "t": torch.zeros(1)},
        lambda w: {"weight": w.half()},
    ],
)
def test_orientation_is_decided_by_the_dimension(small: Path, tmp_path: Path, content: Callable[[Tensor], Any]) -> None:
    weight = rows(9, 16)
    torch.save(content(weight), tmp_path / "head.pt")
    model = import_model(small, classifier=tmp_path / "head.pt")
    assert model.classifier is not None
    torch.testing.assert_close(model.classifier.weight, unit(weight), rtol=1e-2, atol=1e-3)


def test_a_square_classifier_is_ambiguous_unless_its_name_says(small: Path, tmp_path: Path) -> None:
    torch.save({"weight": rows(16, 16)}, tmp_path / "head.pt")
    with pytest.raises(UserError, match="cannot be told apart"):
        import_model(small, classifier=tmp_path / "head.pt")
    torch.save({"weight": rows(16, 16)}, tmp_path / "softmax_fc_gpu_0.pt")
    model = import_model(small, classifier=tmp_path / "softmax_fc_gpu_0.pt")
    assert model.classifier is not None
    torch.testing.assert_close(model.classifier.weight, unit(rows(16, 16)))


def test_classifiers_that_do_not_fit(small: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.pt"
    for content, message in (
        ({"weight": rows(9, 8)}, r"W is \[9, 8\]; expected one side of 16"),
        ({"a": rows(9, 16), "b": rows(9, 16)}, "no class matrix .found a, b"),
        ([1, 2], "no class matrix"),
    ):
        torch.save(content, head)
        with pytest.raises(UserError, match=message):
            import_model(small, classifier=head)
    torch.save({"weight": rows(16, 8)}, tmp_path / "softmax_fc_gpu_0.pt")  # never transposed: shards are (C, d)
    with pytest.raises(UserError, match=r"shard of \[16, 8\]; expected rows of 16"):
        import_model(small, classifier=tmp_path)
    with pytest.raises(UserError, match="no such file"):
        import_model(small, classifier=tmp_path / "none.pt")


def test_class_names_from_a_file(small: Path, tmp_path: Path) -> None:
    torch.save(rows(3, 16), tmp_path / "head.pt")
    (tmp_path / "names.txt").write_text("ann\nbob\ncy\n")
    model = import_model(small, classifier=tmp_path / "head.pt", classes=tmp_path / "names.txt")
    assert model.classifier is not None and model.classifier.class_names == ["ann", "bob", "cy"]


def mbf_state_of_insightface() -> dict[str, Tensor]:
    """The state dict of insightface's `mbf` by its definition: names and shapes only, random values."""
    state: dict[str, Tensor] = {}

    def block(name: str, inputs: int, outputs: int, kernel: int, groups: int = 1, act: bool = True) -> None:
        state[f"{name}.layers.0.weight"] = torch.randn(outputs, inputs // groups, kernel, kernel)
        norm(f"{name}.layers.1", outputs)
        if act:
            state[f"{name}.layers.2.weight"] = torch.rand(outputs)

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(size)
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    def bottleneck(name: str, inputs: int, outputs: int, middle: int) -> None:
        block(f"{name}.layers.0", inputs, middle, 1)
        block(f"{name}.layers.1", middle, middle, 3, groups=middle)
        block(f"{name}.layers.2", middle, outputs, 1, act=False)

    block("layers.0", 3, 128, 3)
    block("layers.1", 128, 128, 3, groups=64)
    at = 2
    for inputs, outputs, down, repeats, middle in (
        (128, 128, 128, 4, 128),
        (128, 256, 256, 6, 256),
        (256, 256, 512, 2, 256),
    ):
        bottleneck(f"layers.{at}", inputs, outputs, down)
        for i in range(repeats):
            bottleneck(f"layers.{at + 1}.layers.{i}", outputs, outputs, middle)
        at += 2
    block("conv_sep", 256, 512, 1)
    block("features.layers.0", 512, 512, 7, groups=512, act=False)
    state["features.layers.2.weight"] = torch.randn(256, 512)
    norm("features.layers.3", 256)
    return state


def test_insightface_mbf_loads_into_the_large_mobilefacenet(tmp_path: Path) -> None:
    state = mbf_state_of_insightface()
    torch.save(state, tmp_path / "model.pt")
    model = import_model(tmp_path / "model.pt")
    assert model.backbone is not None and model.backbone.spec["name"] == "mobilefacenet_large"
    ours = model.backbone.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), state.values()))
    assert torch.equal(ours["stages.1.3.layers.1.0.weight"], state["layers.5.layers.2.layers.1.layers.0.weight"])


def test_old_state_dicts_without_the_batch_counter_load(small: Path, tmp_path: Path) -> None:
    state = torch.load(small, weights_only=True)
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(import_model(tmp_path / "old.pth")(images), import_model(small)(images))


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("code ran",))


def test_files_that_are_no_backbone(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = torch.load(small, weights_only=True)
    wrong = dict(state) | {"module.bn2.weight": torch.zeros(5)}
    for name, content, message in (
        ("code.pth", {"a": Evil()}, "not a PyTorch file of plain tensors"),
        ("list.pth", [1], "no state dict"),
        ("other.pth", {"a.weight": torch.zeros(2)}, "unknown network .1 tensors, first 'a.weight'"),
        ("empty.pth", {}, "unknown network"),
        ("shape.pth", wrong, r"tensor 'bn2.weight' has shape \[5\]; expected \[64\]"),
        ("depth.pth", {k: v for k, v in state.items() if ".layer3.1." not in k}, "unknown network"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=message):
            import_model(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "cut.pth").write_bytes(small.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.pth: not a PyTorch file"):
        import_model(tmp_path / "cut.pth")


def test_paths_and_kinds_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        import_model(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        import_model(tmp_path, kind="onx")
    with pytest.raises(UserError, match="no backbone in this folder"):
        import_model(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(UserError, match="cannot tell what it is"):
        import_model(tmp_path / "x.bin")


def test_centre_makes_a_new_space_without_the_old_classifier(
    small: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save({"weight": rows(12, 16)}, tmp_path / "head.pt")
    plain = import_model(small, classifier=tmp_path / "head.pt")
    mean = embed_dataset(plain, open_dataset(tiny.photos)).vectors.mean((0, 1))
    assert not capsys.readouterr().out
    for centre in (tiny.photos, str(tiny.photos), open_dataset(tiny.photos)):
        model = import_model(small, classifier=tmp_path / "head.pt", centre=centre)
        assert model.offset is not None and model.classifier is None and model.space != plain.space
        torch.testing.assert_close(model.offset, torch.from_numpy(mean))
        assert "belongs to the old one and is left out" in capsys.readouterr().out
    import_model(small, centre=tiny.photos)
    assert not capsys.readouterr().out, "there was no classifier to leave out"


def test_fit_classifier_trains_w_on_the_centred_embeddings(small: Path, tiny: Tiny, tmp_path: Path) -> None:
    photos, cache = open_dataset(tiny.photos), tmp_path / "cache"
    model = import_model(small, centre=photos, fit_classifier=photos, margin="cosface", scale=16, cache=cache)
    assert model.classifier is not None and model.classifier.origin == "fitted"
    assert model.classifier.class_names == photos.class_names
    assert len(list(cache.iterdir())) == 2  # the embeddings before and after
    expected = fit_classifier(embed_dataset(model, photos), CosFace(), 16)
    torch.testing.assert_close(model.classifier.weight, expected.weight)
    by_hand = import_model(small, fit_classifier=str(tiny.photos), margin=ArcFace(0.1), scale=16)
    expected = fit_classifier(embed_dataset(import_model(small), photos), ArcFace(0.1), 16)
    assert by_hand.classifier is not None
    torch.testing.assert_close(by_hand.classifier.weight, expected.weight)


def test_an_unknown_margin_is_refused_before_the_work(small: Path) -> None:
    with pytest.raises(UsageError, match=r"margin 'arcfase' is unknown .did you mean 'arcface'"):
        import_model(small, fit_classifier="nowhere", margin="arcfase")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        import_model(small, centre="nowhere")


def test_classes_are_names_a_text_file_or_a_data_set(small: Path, tiny: Tiny, tmp_path: Path) -> None:
    people = open_dataset(tiny.photos).class_names
    torch.save({"weight": rows(12, 16)}, tmp_path / "head.pt")
    for name in ("names.txt", "names.csv", "names"):
        (tmp_path / name).write_text("".join(f"{person}\n" for person in people))
    named: list[Names] = [tmp_path / "names.txt", str(tmp_path / "names.csv"), tmp_path / "names"]
    for classes in (people, *named, tiny.photos, str(tiny.photos)):
        model = import_model(small, classes=classes, classifier=tmp_path / "head.pt")
        assert model.classifier is not None and model.classifier.class_names == people, classes
    with pytest.raises(UserError, match="12 classes, but 5 class names"):
        classes = "synthetic:identities=5,images=1"
        import_model(small, classes=classes, classifier=tmp_path / "head.pt")


def test_a_table_of_embeddings_becomes_a_teacher_without_network(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2])
    np.savez(tmp_path / "t.npz", keys=list("uvwxyz"), class_names=["a", "b", "c"], labels=labels, vectors=vectors)
    model = import_model(tmp_path / "t.npz", classes=["ann", "bob", "cy"])
    assert model.backbone is None and model.embedding_dim == 4
    assert model.classifier is not None and model.classifier.origin == "centres"
    unit_vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = unit(torch.from_numpy(unit_vectors.reshape(3, 2, 4).sum(1)))
    torch.testing.assert_close(model.classifier.select(["ann", "bob", "cy"]).weight, expected)
    save_model(model, tmp_path / "teacher")
    assert load_model(tmp_path / "teacher").space == model.space
    with pytest.raises(UserError, match="3 classes, but 2 class names"):
        import_model(tmp_path / "t.npz", classes=["ann", "bob"])
    with pytest.raises(UsageError, match="no network and no W; drop colour"):
        import_model(tmp_path / "t.npz", colour="bgr")


def test_real_onnx_file_with_a_declared_input(shared: Path, tmp_path: Path) -> None:
    path = shared / "models" / "mobilefacenet128.onnx"
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    plain = import_model(path)
    assert (plain.input.mean, plain.input.std) == ((0.0,) * 3, (1.0,) * 3)
    swapped = import_model(path, colour="bgr")
    torch.testing.assert_close(swapped(images), plain(images.flip(1)))
    assert swapped.space != plain.space
    torch.save(rows(5, 128), tmp_path / "head.pt")
    assert len(import_model(path, classifier=tmp_path / "head.pt").classifier or ()) == 5


def test_a_real_state_dict_of_another_network_is_one_clear_error(shared: Path) -> None:
    with pytest.raises(UserError, match=r"unknown network .* ONNX") as caught:
        import_model(shared / "models" / "mobilefacenet128_state_dict.pt")
    assert "\n" not in str(caught.value)


def _mean_of_colours(path: Path, shape: list, kind: str = "float", outputs: int = 1) -> Path:
    """A graph that gives the mean of each colour, and as a second output its negative."""
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=types.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Neg", ["mean"], ["negative"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", types.DataType.Value(kind.upper()), shape)
    made = [helper.make_tensor_value_info(name, types.FLOAT, ["N", 3]) for name in ("mean", "negative")[:outputs]]
    graph = helper.make_graph(nodes[: outputs + 1], "net", [pixels], made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def test_an_onnx_graph_of_open_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = _mean_of_colours(tmp_path / "n.onnx", ["N", 3, "h", "w"])
    assert import_model(path).input_size == 112
    assert "leaves height and width open, taken as 112 x 112" in capsys.readouterr().err
    save_model(import_model(path, size=160), tmp_path / "teacher")
    assert not capsys.readouterr().err and load_model(tmp_path / "teacher").input_size == 160
    assert load_model(path).input_size == 112 and "import --size" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"expected N x 3 x H x W .* of size 64"):
        import_model(_mean_of_colours(tmp_path / "fixed.onnx", ["N", 3, 32, 32]), size=64)


def test_the_named_output_is_kept_in_the_folder(tmp_path: Path) -> None:
    path = _mean_of_colours(tmp_path / "n.onnx", ["N", 3, 16, 16], outputs=2)
    with pytest.raises(UserError, match=r"2 outputs .'mean' .*, 'negative' .*; name the embedding with `import --out"):
        import_model(path)
    model = import_model(path, output="negative", colour="bgr")
    save_model(model, tmp_path / "teacher")
    again, images = load_model(tmp_path / "teacher"), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(again(images), -images.float().mean((2, 3)).flip(1))
    assert again.space == model.space == again.fingerprint() != import_model(path, output="mean").space


def test_a_graph_of_whole_pixels_takes_no_normalisation(tmp_path: Path) -> None:
    path = _mean_of_colours(tmp_path / "n.onnx", ["N", 3, 16, 16], kind="uint8")
    assert import_model(path, colour="bgr").input.colour == "bgr"
    with pytest.raises(UserError, match="takes uint8 pixels, so its normalisation is inside"):
        import_model(path, mean=[127.5], std=[127.5])


def test_options_that_a_checkpoint_does_not_have(small: Path) -> None:
    with pytest.raises(UsageError, match=r"its weights say the size, .*; drop size, output"):
        import_model(small, size=32, output="embedding")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_a_finite_number_above_zero(small: Path, scale: float) -> None:
    with pytest.raises(UsageError, match="expected a finite number above 0"):
        import_model(small, fit_classifier="nowhere", scale=scale)


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_w_is_told_apart_by_the_images_of_its_classes(small: Path, tmp_path: Path, turned: bool) -> None:
    faces = "synthetic:identities=16,images=4,size=32,seed=1"
    means = embed_dataset(import_model(small), open_dataset(faces), flips=False)
    vectors = torch.from_numpy(means.fused("none"))
    weight = torch.stack([vectors[torch.from_numpy(means.labels == label)].mean(0) for label in range(16)])
    torch.save({"weight": (weight.t() if turned else weight).contiguous()}, tmp_path / "head.pt")
    model = import_model(small, classifier=tmp_path / "head.pt", classes=faces)
    assert model.classifier is not None and model.classifier.class_names == means.class_names
    torch.testing.assert_close(model.classifier.weight, unit(weight))


def test_a_square_w_of_other_images_stays_untold(small: Path, tmp_path: Path) -> None:
    torch.save({"weight": rows(16, 16)}, tmp_path / "head.pt")
    with pytest.raises(UserError, match="cannot be told apart; give a data set of its classes"):
        import_model(small, classifier=tmp_path / "head.pt", classes=[str(i) for i in range(16)])
