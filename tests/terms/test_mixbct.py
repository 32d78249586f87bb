"""MixBCT: what is replaced, how much of it, and the margin softmax of the mixture written out."""

from typing import Any

import numpy as np
import pytest
import torch

from check_toys import table_of
from facedistill.data.batch import Batch, Output
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.terms.margin_softmax import MarginSoftmax
from facedistill.terms.mixbct import MixBCT, credible
from term_toys import draw

TABLE = table_of(classes=6, images=10, dim=5)
IMAGES = torch.arange(0, 60, 3)  # the batch: 20 images
OLD = torch.from_numpy(TABLE.vectors[IMAGES.numpy(), 1])


def _weight() -> ClassWeight:
    return ClassWeight(Classifier(draw(6, 5, 7), TABLE.class_names), "gradient")


def _term(**options: Any) -> MixBCT:
    term = MixBCT(**({"scale": 10.0} | options))
    term.bind_table(TABLE, None)
    term.bind(_weight(), None)
    return term


def _batch(progress: float = 0.5) -> Batch:
    pixels, labels = torch.zeros(20, 3, 2, 2), torch.from_numpy(TABLE.labels)[IMAGES]
    return Batch(pixels, pixels, [(labels, 1.0)], torch.stack([IMAGES, torch.ones(20).long()], 1), progress, labels)


def _replaced(term: MixBCT, new: torch.Tensor, progress: float = 0.5) -> np.ndarray:
    """Which of the batch's images had no gradient: the old embedding stood in for them. The loss is checked, too."""
    x = new.clone().requires_grad_()
    loss = term(Output(x), Output(OLD), _batch(progress))
    loss.backward()
    assert x.grad is not None
    gone = (x.grad == 0).all(1)
    plain = MarginSoftmax(scale=10.0)
    plain.bind(_weight(), None)
    mixture = torch.where(gone[:, None], 40 * OLD, new)
    assert loss.item() == pytest.approx(plain(Output(mixture), None, _batch()).item(), rel=1e-5)
    return gone.numpy()


def test_a_share_of_the_batch_is_old_drawn_anew_each_time_from_the_credible_alone() -> None:
    term, new = _term(), draw(20, 5, 0).float()
    able = term.credible[IMAGES].numpy()
    assert not able.all()
    drawn = np.stack([_replaced(term, new, step / 41) for step in range(40)])
    assert (drawn.sum(1) == 6).all()  # 30% of 20
    assert not drawn[:, ~able].any() and drawn[:, able].any(0).all()


def test_the_same_step_replaces_the_same_images_whatever_was_drawn_before() -> None:
    found = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        found.append(_replaced(_term(), draw(20, 5, 0).float()))
    assert (found[0] == found[1]).all()


def test_where_too_few_are_credible_all_of_those_are_replaced() -> None:
    term = _term(credible=0.05)
    assert _replaced(term, draw(20, 5, 0).float()).sum() == term.credible[IMAGES].sum() <= 3


def test_credible_are_the_nearest_to_their_class_mean() -> None:
    summed = TABLE.vectors.astype(np.float64).sum(1)
    single = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    means = np.stack([single[TABLE.labels == c].mean(0) for c in range(6)])
    near = (single * means[TABLE.labels]).sum(1) / np.linalg.norm(means[TABLE.labels], axis=1)
    left = set(np.argsort(near)[:6].tolist())
    assert set(np.flatnonzero(~credible(TABLE, 0.9)).tolist()) == left


def test_measured_it_is_the_plain_margin_softmax() -> None:
    plain = MarginSoftmax(scale=10.0)
    plain.bind(_weight(), None)
    new = Output(draw(20, 5, 0).float())
    assert _term().eval()(new, Output(OLD), _batch()).item() == plain(new, None, _batch()).item()


def test_it_anchors_and_keeps_nothing_of_the_old_embeddings_in_checkpoints() -> None:
    assert _term().anchors and not [name for name in _term().state_dict() if "weight" not in name]


def test_another_dimension_is_refused() -> None:
    with pytest.raises(UserError, match="student's embeddings have 6 dimensions, the teacher's 5"):
        _term()(Output(draw(20, 6, 0).float()), Output(OLD), _batch())
