"""The margin softmax term: formula, streaming against dense, warm-up, running statistics."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch

from facedistill.data.batch import Batch, Output
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.margins import MARGINS, AdaFace, CurricularFace, make_margin
from facedistill.recipe.schema import MovedBy
from facedistill.terms.margin_softmax import MarginSoftmax

FROZEN_AND_LEARNED: tuple[MovedBy, ...] = ("nothing", "gradient")
NAMES = [f"person {i}" for i in range(11)]
ROWS = Classifier(torch.randn(11, 8, generator=torch.Generator().manual_seed(5)), NAMES)


def _term(moved_by: MovedBy | Literal["none"] = "nothing", **options: Any) -> MarginSoftmax:
    term = MarginSoftmax(**({"scale": 10.0} | options))
    term.bind(None, None) if moved_by == "none" else term.bind(ClassWeight(ROWS, moved_by), None)
    return term


def _batch(progress: float = 1.0, targets: list[float] | None = None) -> Batch:
    labels = [torch.tensor([0, 3, 3, 10]), torch.tensor([5, 0, 1, 2])]
    pairs = list(zip(labels, targets or [1.0]))
    return Batch(torch.zeros(4, 3, 2, 2), torch.zeros(4, 3, 2, 2), pairs, torch.zeros(4, 2), progress, pairs[0][0])


def _embedding() -> torch.Tensor:
    return 3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(9))


def _expected(labels: torch.Tensor, scale: float, size: float) -> float:
    """-log softmax, ArcFace on the own class, in numpy and float64."""
    x, w = _embedding().double().numpy(), ROWS.weight.double().numpy()
    cos = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    losses = []
    for row, y in zip(cos, labels.tolist()):
        theta = math.acos(row[y])
        own = math.cos(theta + size) if theta + size < math.pi else row[y] - size * math.sin(size)
        others = sum(math.exp(scale * c) for j, c in enumerate(row) if j != y)
        losses.append(-math.log(math.exp(scale * own) / (math.exp(scale * own) + others)))
    return float(np.mean(losses))


@pytest.mark.parametrize("moved_by", FROZEN_AND_LEARNED)
def test_formula(moved_by: MovedBy) -> None:
    loss = _term(moved_by)(Output(_embedding()), None, _batch())
    assert loss.ndim == 0 and loss.item() == pytest.approx(_expected(_batch().targets[0][0], 10, 0.5), rel=1e-4)


@pytest.mark.parametrize("moved_by", FROZEN_AND_LEARNED)
def test_mixed_targets_share_the_loss(moved_by: MovedBy) -> None:
    batch = _batch(targets=[0.75, 0.25])
    expected = sum(share * _expected(labels, 10, 0.5) for labels, share in batch.targets)
    assert _term(moved_by)(Output(_embedding()), None, batch).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("margin", list(MARGINS))
def test_streaming_and_dense_agree_in_loss_and_gradient(margin: str, progress: float) -> None:
    able = make_margin(margin).neutral is not None
    options = {"margin": margin, "margin_warmup": 0.1 if able else 0.0}
    if margin == "combined":
        options["margin_options"] = {"m1": 1.1, "m2": 0.2, "m3": 0.1}
    found = []
    for moved_by in FROZEN_AND_LEARNED:
        x = _embedding().requires_grad_()
        loss = _term(moved_by, **options)(Output(x), None, _batch(progress))
        loss.backward()
        found.append((loss.detach(), x.grad))
    torch.testing.assert_close(*[f[0] for f in found], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*[f[1] for f in found], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("margin", ["arcface", "cosface", "sphereface"])
def test_warm_up_grows_from_no_margin_to_the_whole(margin: str) -> None:
    warm, whole = _term(margin=margin, margin_warmup=0.2), _term(margin=margin)
    none = _term(margin="cosface", margin_options={"size": 0.0})
    output = Output(_embedding())
    losses = [warm(output, None, _batch(p)).item() for p in (0.0, 0.05, 0.1, 0.15, 0.2, 1.0)]
    assert losses[0] == pytest.approx(none(output, None, _batch()).item(), rel=1e-5)
    assert losses == sorted(losses)
    assert losses[4] == losses[5] == whole(output, None, _batch()).item()
    half = {"arcface": 0.25, "cosface": 0.175, "sphereface": 1.35}[margin]
    fixed = _term(margin=margin, margin_options={"size": half})
    assert losses[2] == pytest.approx(fixed(output, None, _batch()).item(), rel=1e-5)


@pytest.mark.parametrize("margin", ["arcface", "cosface", "sphereface"])
def test_warm_up_has_a_gradient_from_its_first_step(margin: str) -> None:
    x = _embedding().requires_grad_()
    _term(margin=margin, margin_warmup=0.2)(Output(x), None, _batch(0.0)).backward()
    assert x.grad is not None and bool((x.grad.norm(dim=1) > 1e-4).all())


@pytest.mark.parametrize("margin", ["adaface", "curricularface", "combined"])
def test_warm_up_is_refused_where_no_single_size_grows(margin: str) -> None:
    with pytest.raises(UsageError, match=f"margin '{margin}'.*use one of arcface, cosface, sphereface"):
        _term(margin=margin, margin_warmup=0.1)


def test_adaface_takes_the_batchs_norms_before_the_loss_in_training_only() -> None:
    term, x = _term(margin="adaface"), _embedding()
    margin = term.margin
    assert isinstance(margin, AdaFace)
    norms = x.norm(dim=1)
    term.eval()(Output(x), None, _batch())
    assert margin.mean.item() == 20 and margin.std.item() == 100
    term.train()
    loss = term(Output(x), None, _batch())
    mean, std = 0.99 * 20 + 0.01 * norms.mean().item(), 0.99 * 100 + 0.01 * norms.std().item()
    assert margin.mean.item() == pytest.approx(mean) and margin.std.item() == pytest.approx(std)
    # With the statistics already updated, the same batch in eval mode gives the same loss.
    assert loss.item() == term.eval()(Output(x), None, _batch()).item()
    assert {"margin.mean", "margin.std"} <= set(term.state_dict())


def test_curricularface_takes_the_batchs_target_cosine_in_training_only() -> None:
    term, x, batch = _term(margin="curricularface"), _embedding(), _batch()
    margin = term.margin
    assert isinstance(margin, CurricularFace)
    cos = torch.nn.functional.cosine_similarity(x, ROWS.weight[batch.targets[0][0]]).mean().item()
    term.eval()(Output(x), None, batch)
    assert margin.t.item() == 0
    term.train()
    for step in (1, 2):
        term(Output(x), None, batch)
        assert margin.t.item() == pytest.approx(cos * (1 - 0.99**step), rel=1e-5)


def test_float32_under_autocast() -> None:
    for moved_by in FROZEN_AND_LEARNED:
        with torch.autocast("cpu", torch.bfloat16):
            loss = _term(moved_by, scale=64.0)(Output(_embedding()), None, _batch())
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(_expected(_batch().targets[0][0], 64, 0.5), rel=1e-4)


def test_gradient_reaches_a_learned_w_only() -> None:
    term = _term("gradient")
    term(Output(_embedding()), None, _batch()).backward()
    assert term.weight.weight.grad is not None and bool(term.weight.weight.grad.any())
    assert not list(_term("nothing").parameters())


def test_what_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"no classifier; set method\.classifier\.start"):
        _term("none")
    with pytest.raises(UsageError, match=r"margin 'arcfase' is unknown \(did you mean 'arcface'\?\)"):
        _term(margin="arcfase")
    with pytest.raises(
        UsageError, match=r"margin 'arcface' has no option 'sise' \(did you mean 'size'\?\); it has: size"
    ):
        _term(margin_options={"sise": 0.3})
    with pytest.raises(UsageError, match="option 'gradient': Input should be 'exact' or 'straight_through'"):
        _term(margin_options={"gradient": "sideways"})
    with pytest.raises(UserError, match="projection"):
        _term()(Output(torch.randn(4, 6)), None, _batch())
