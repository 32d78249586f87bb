"""Residual distillation: the formula, whose gradient goes where, and that one optimiser does what two would."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.backbones import create_backbone
from facedistill.backbones.residual import Residual as Pair
from facedistill.data.batch import Output
from facedistill.errors import UsageError
from facedistill.models.model import Model
from facedistill.terms.residual import Residual, residual, residual_stage
from term_toys import batch_of, draw, unit

SHAPES = [torch.Size([3, 4, 4]), torch.Size([5, 2, 2])]


def _maps(count: int, seed: int, double: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.float64 if double else torch.float32
    return [torch.randn(count, *shape, generator=generator, dtype=kind) for shape in SHAPES]


def _composed(s: Tensor, a: Tensor, s_maps: list[Tensor], a_maps: list[Tensor]) -> Output:
    return Output(s + a, (), {"student": Output(s, tuple(s_maps)), "assistant": Output(a, tuple(a_maps))})


def test_formula() -> None:
    s, a, t = (draw(6, 5, seed) for seed in range(3))
    expected = np.mean((s - t).numpy() ** 2) + np.mean((a - (t - s)).numpy() ** 2)
    assert residual(s, a, t).item() == pytest.approx(expected, rel=1e-12)
    assert residual(s, t - s, t).item() == pytest.approx(np.mean((s - t).numpy() ** 2), rel=1e-12)
    assert residual(t, torch.zeros_like(t), t).item() == 0


def test_directions_are_compared_by_their_cosines() -> None:
    s, a, t = (draw(6, 5, seed) for seed in range(3))
    own, both, other = unit(s), unit(s + a), unit(t)
    expected = np.mean(2 - 2 * (own * other).sum(1)) + np.mean(2 - 2 * (both * other).sum(1))
    assert residual(s, a, t, normalise=True).item() == pytest.approx(expected, rel=1e-10)
    assert residual(3 * s, t - 3 * s, 0.1 * t, normalise=True).item() == pytest.approx(
        np.mean(2 - 2 * (own * other).sum(1)), rel=1e-10
    )
    output = _composed(s.float(), a.float(), [], [])
    term = Residual(normalise=True)
    term.needs -= {"features"}
    assert term(output, Output(t.float()), batch_of(range(6))).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_no_gradient_of_the_assistants_loss_reaches_the_student(normalise: bool) -> None:
    s, a, t = draw(4, 3, 0, trained=True), draw(4, 3, 1), draw(4, 3, 2)
    gradients = []
    for assistant in (a, 5 * a, t - s.detach()):
        gradients.append(torch.autograd.grad(residual(s, assistant, t, normalise), s)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


def test_the_student_learns_from_the_teacher_alone() -> None:
    s, a, t = draw(4, 3, 0, trained=True), draw(4, 3, 1, trained=True), draw(4, 3, 2)
    residual(s, a, t).backward()
    assert s.grad is not None and a.grad is not None
    torch.testing.assert_close(s.grad, 2 * (s - t).detach() / 12)
    torch.testing.assert_close(a.grad, 2 * (a - t + s).detach() / 12)


def test_gradcheck_of_the_assistant() -> None:
    s, t = draw(3, 4, 0), draw(3, 4, 1)
    assert torch.autograd.gradcheck(lambda a: residual(s, a, t), draw(3, 4, 2, trained=True))


def test_a_stage_of_equal_channels_is_the_papers_and_trains_the_assistant_alone() -> None:
    term = Residual()
    term.bind_features(SHAPES, SHAPES)
    assert not list(term.parameters())
    (s, *_), (a, *_), (t, *_) = (_maps(2, seed) for seed in range(3))
    s.requires_grad_()
    a.requires_grad_()
    loss = residual_stage(s, a, t, term.projections[0])
    assert loss.item() == pytest.approx(np.mean((a - (t - s)).detach().numpy() ** 2), rel=1e-12)
    loss.backward()
    assert s.grad is None and a.grad is not None and a.grad.any()


def test_other_channels_and_sizes_are_projected_and_averaged() -> None:
    term = Residual()
    term.bind_features(SHAPES, [torch.Size([4, 2, 2]), torch.Size([5, 2, 2])])
    (layer, same) = term.projections
    assert isinstance(layer, torch.nn.Conv2d) and layer.bias is None and isinstance(same, torch.nn.Identity)
    (s, *_), (a, *_) = (_maps(2, seed, double=False) for seed in range(2))
    t = torch.randn(2, 4, 2, 2)
    weight = layer.weight.detach().numpy()[:, :, 0, 0]
    mean = (s + a).numpy().reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    expected = np.mean((np.einsum("oc,bchw->bohw", weight, mean) - t.numpy()) ** 2)
    assert residual_stage(s, a, t, layer).item() == pytest.approx(expected, rel=1e-5)


def test_the_term_sums_embedding_and_stages_and_does_without_them() -> None:
    term = Residual()
    term.bind_features(SHAPES, SHAPES)
    s, a, t = (draw(2, 3, seed).float() for seed in range(3))
    s_maps, a_maps, t_maps = (_maps(2, seed, double=False) for seed in range(3, 6))
    student = _composed(s, a, s_maps, a_maps)
    alone = F.mse_loss(s, t) + F.mse_loss(a, t - s)
    stages = sum(F.mse_loss(x, y - z) for x, y, z in zip(a_maps, t_maps, s_maps))
    found = term(student, Output(t, tuple(t_maps)), batch_of([0, 1]))
    assert found.dtype == torch.float32 and found.item() == pytest.approx((alone + stages).item(), rel=1e-5)
    term.needs -= {"features"}
    assert term(student, Output(t), batch_of([0, 1])).item() == pytest.approx(alone.item(), rel=1e-5)
    assert "features" in Residual().needs


def _optimiser(kind: str, parameters: Any) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-3)
    return torch.optim.AdamW(parameters, 1e-2)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_one_optimiser_does_what_two_would(kind: str) -> None:
    torch.manual_seed(0)
    model = Model(create_backbone("residual", 6, 32, options={"width": 0.125}))
    parts = copy.deepcopy(model)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        shapes = [m.shape[1:] for m in model.outputs(images).features]
    teacher = Output(draw(4, 6, 3).float(), tuple(torch.randn(4, *shape) for shape in shapes))

    term = Residual()
    term.bind_features(shapes, shapes)
    optimizer = _optimiser(kind, model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        term(model.outputs(images), teacher, batch_of([0, 1, 2, 3])).backward()
        optimizer.step()

    assert isinstance(parts.backbone, Pair)
    first, second = parts.backbone.student, parts.backbone.assistant
    own = [_optimiser(kind, part.parameters()) for part in (first, second)]
    x = parts.normalise(images)
    for _ in range(3):
        s, s_maps = first.with_features(x)
        own[0].zero_grad()
        F.mse_loss(s, teacher.embedding).backward()
        own[0].step()
        a, a_maps = second.with_features(x)
        s, s_maps = s.detach(), tuple(m.detach() for m in s_maps)
        loss = F.mse_loss(s + a, teacher.embedding)  # in the term's order, for the same rounding
        for a_map, s_map, t_map in zip(a_maps, s_maps, teacher.features):
            loss = loss + F.mse_loss(a_map + s_map, t_map)
        own[1].zero_grad()
        loss.backward()
        own[1].step()
    for (name, found), expected in zip(model.named_parameters(), parts.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_stages_that_do_not_pair_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"residual: the student has 2 stages, the teacher 1; .*student.options"):
        Residual().bind_features(SHAPES, SHAPES[:1])
