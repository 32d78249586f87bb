"""A hallucination network before a recogniser is a Model as any other: it computes what its parts compute."""

from pathlib import Path

import pytest
import torch
from torch import nn

from facedistill.backbones import create_backbone
from facedistill.data import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import evaluate
from facedistill.export import export_model
from facedistill.hallucination.composed import NAME, HallucinatingBackbone, compose
from facedistill.hallucination.fhn import FHN, create_fhn
from facedistill.hallucination.measures import rounded
from facedistill.hallucination.starts import network_of
from facedistill.models import InputSpec, Model, load_model, save_model
from tiny_world import Tiny


@pytest.fixture(scope="module")
def network() -> FHN:
    torch.manual_seed(0)
    return create_fhn("tiny").eval()


def test_it_computes_what_its_parts_compute(tiny: Tiny, network: FHN) -> None:
    recogniser = load_model(tiny.student)
    model = compose(network, 32, recogniser)
    images = open_dataset(tiny.photos).batch(range(5)).images
    with torch.no_grad():
        faces = (network(model.normalise(images)) + 1) * 127.5
        assert torch.allclose(model(images), recogniser(faces), atol=1e-5)
        features = model.outputs(images).features
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(features, recogniser.outputs(faces).features))
    assert model.space == recogniser.space and model.embedding_dim == recogniser.embedding_dim
    assert model.parameters_count() == 2_077_149 + recogniser.parameters_count()


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_the_recognisers_colours_offset_and_projection_are_kept(network: FHN, colour: str) -> None:
    spec = InputSpec(32, colour, mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0))
    inner = create_backbone("mobilefacenet", 16, 32, width=0.25)
    projection = nn.Linear(16, 8, bias=False)
    recogniser = Model(inner, spec, offset=torch.randn(8), projection=projection).eval()
    model = compose(network, 32, recogniser)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        faces = (network(model.normalise(images)) + 1) * 127.5
        assert torch.allclose(model(images), recogniser(faces), atol=1e-4)


def test_saved_and_loaded_it_is_the_same(tiny: Tiny, network: FHN, tmp_path: Path) -> None:
    model = compose(network, 32, load_model(tiny.student))
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    images = open_dataset(tiny.photos).batch(range(3)).images
    assert torch.equal(again.embed(images), model.embed(images)) and again.space == model.space
    inside, size = network_of(tmp_path / "model")
    assert size == 32 and torch.equal(inside.coarse[0][1].weight, network.coarse[0][1].weight)  # type: ignore[index]
    assert (tmp_path / "model" / "README.md").read_text()


def test_it_is_evaluated_against_a_teacher(tiny: Tiny, network: FHN) -> None:
    models = {"student": compose(network, 32, load_model(tiny.student)), "teacher": load_model(tiny.teacher)}
    found = evaluate(models, [tiny.pairs], fars=[0.1], resamples=0)
    assert {r["probe"] for r in found["results"]} == {"student", "teacher"}
    assert found["models"]["student"]["parameters"] > 2_077_149


def test_before_a_student_of_two_networks_both_are_there(network: FHN, tmp_path: Path) -> None:
    inner = create_backbone("residual", 8, 32, options={"width": 0.25})
    recogniser = Model(inner, InputSpec(32, "bgr"), offset=torch.randn(4), projection=nn.Linear(8, 4, bias=False))
    recogniser, images = recogniser.eval(), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model = compose(network, 32, recogniser)
    with torch.no_grad():
        faces = (network(model.normalise(images)) + 1) * 127.5
        ours, theirs = model.outputs(images).parts, recogniser.outputs(faces).parts
        assert list(ours) == ["student", "assistant"]
        for name in ours:
            assert torch.allclose(ours[name].embedding, theirs[name].embedding, atol=1e-4)
        save_model(model.part("student"), tmp_path / "alone")
        alone = load_model(tmp_path / "alone")(images)
    assert torch.allclose(alone, ours["student"].embedding, atol=1e-5)


@pytest.mark.slow
def test_it_exports(network: FHN, tmp_path: Path) -> None:
    """The export itself compares the file with the model. At 32 pixels, norms of 2 x 2 maps magnify rounding."""
    recogniser = Model(create_backbone("mobilefacenet", 16, 64, width=0.25)).eval()
    save_model(compose(network, 64, recogniser), tmp_path / "model")
    made = export_model(tmp_path / "model", "onnx", tmp_path / "model.onnx")
    assert made.gate.passed and made.gate.first_percentile > 0.99999
    assert load_model(tmp_path / "model.onnx").space == load_model(tmp_path / "model").space


def test_gradients_reach_both_parts(tiny: Tiny) -> None:
    model = compose(create_fhn("tiny"), 32, load_model(tiny.student)).train()
    model(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)).square().sum().backward()
    backbone = model.backbone
    assert isinstance(backbone, HallucinatingBackbone)
    for part in (backbone.fhn.coarse, backbone.fhn.decoder, backbone.recogniser):
        grads = [p.grad for p in part.parameters() if p.requires_grad]
        assert grads and all(g is not None and g.isfinite().all() for g in grads)


def test_made_by_name() -> None:
    small = {"name": "mobilefacenet", "options": {"embedding_dim": 8, "width": 0.25}}
    network = create_backbone(NAME, 8, 32, recogniser=small).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 8)
    assert network.spec["options"]["recogniser"]["options"]["input_size"] == 32
    face = rounded(network.fhn(torch.zeros(1, 3, 32, 32)))  # type: ignore[operator]
    assert face.dtype == torch.uint8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"embedding_dim": 16},
            "a composed network of 32 pixels and 16 dimensions: its recogniser takes 32 pixels and gives 8",
        ),
        ({"input_size": 40}, "hallucination.size=40: expected a multiple of 16"),
        ({"recogniser": {"name": "mobilefacenet"}}, "recogniser has name; expected its name and options"),
        ({"preset": "huge"}, "FHN 'huge': expected one of tiny"),
        ({"recogniser": {"name": "mobilfacenet", "options": {"embedding_dim": 8}}}, "did you mean 'mobilefacenet'"),
    ],
)
def test_parts_that_do_not_fit(options: dict, message: str) -> None:
    small = {"recogniser": {"name": "mobilefacenet", "options": {"embedding_dim": 8, "width": 0.25}}}
    with pytest.raises(UsageError, match=message):
        create_backbone(NAME, **({"embedding_dim": 8, "input_size": 32} | small | options))


def test_recognisers_that_cannot_be_joined(tiny: Tiny, network: FHN, shared: Path) -> None:
    with pytest.raises(
        UserError, match="takes 32 x 32 pixels, the hallucination network gives 48 x 48; train one of them"
    ):
        compose(network, 48, load_model(tiny.student))
    teacher = load_model(shared / "models" / "mobileface256.onnx")
    with pytest.raises(
        UserError, match="an ONNX file or a table of embeddings has no layers to join; for these, write"
    ):
        compose(network, 112, teacher)
    with pytest.raises(UserError, match="must be a model of this program with its weights"):
        compose(network, 112, Model(None, embedding_dim=8))
    with pytest.raises(
        UsageError, match="this model has no hallucination network; expected a run of `hallucinate train`"
    ):
        network_of(tiny.student)
