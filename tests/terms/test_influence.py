"""BCT's influence loss: the old classifier's rows, the old class means where it has none, the softmax written out."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from check_toys import table_of
from facedistill.data.batch import Output
from facedistill.data.embeddings import Embeddings
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.starts import completed
from facedistill.terms.influence import Influence
from term_toys import batch_of, draw, loss_and_gradient, unit

TABLE = table_of(classes=6, images=4, dim=5)
OLD = Classifier(draw(4, 5, 3), ["c004", "c000", "stranger", "c005"])  # c001, c002 and c003 are new
LABELS = [4, 1, 1, 3]


def _rows(old: Classifier | None, table: Embeddings = TABLE) -> np.ndarray:
    """The W that the old model has for these classes, in plain numpy."""
    known = {} if old is None else dict(zip(old.class_names, unit(old.weight)))
    summed = table.vectors.astype(np.float64).sum(1)
    single = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    rows = []
    for c, name in enumerate(table.class_names):
        mean = single[table.labels == c].mean(0)
        rows.append(known.get(name, mean / np.linalg.norm(mean)))
    return np.stack(rows)


def _term(old: Classifier | None = OLD, **options: Any) -> Influence:
    term = Influence(**({"scale": 10.0} | options))
    term.bind_table(TABLE, old)
    # The student's own W, which plays no part.
    term.bind(ClassWeight(Classifier(draw(6, 5, 8), TABLE.class_names), "gradient"), None)
    return term


@pytest.mark.parametrize("old", [OLD, None])
def test_formula(old: Classifier | None) -> None:
    s = draw(4, 5, 0).float()
    cos = unit(s) @ _rows(old).T
    losses = []
    for row, y in zip(cos, LABELS):
        theta = math.acos(row[y])
        own = math.cos(theta + 0.5) if theta + 0.5 < math.pi else row[y] - 0.5 * math.sin(0.5)
        others = sum(math.exp(10 * c) for j, c in enumerate(row) if j != y)
        losses.append(-math.log(math.exp(10 * own) / (math.exp(10 * own) + others)))
    loss, gradient = loss_and_gradient(_term(old), s, draw(4, 9, 1), LABELS)
    assert loss == pytest.approx(np.mean(losses), rel=1e-4) and gradient.any()


def test_the_rows_are_the_old_ones_and_means_stand_in_for_the_rest() -> None:
    found = completed(OLD, TABLE)
    assert found.class_names == TABLE.class_names and found.origin == "teacher"
    np.testing.assert_allclose(found.weight.numpy(), _rows(OLD), atol=1e-6)
    np.testing.assert_allclose(completed(None, TABLE).weight.numpy(), _rows(None), atol=1e-6)
    assert completed(None, TABLE).origin == "centres"
    with pytest.raises(UserError, match="7 dimensions, the embeddings 5; they do not belong together"):
        completed(Classifier(draw(2, 7, 0), ["c000", "c001"]), TABLE)


def test_it_anchors_has_nothing_to_train_and_reads_the_class_not_the_row() -> None:
    term = _term()
    assert term.anchors and not list(term.parameters()) and not term.state_dict()
    s, by_image = draw(4, 5, 0).float(), batch_of(LABELS)
    by_image.targets = [(torch.tensor([20, 21, 22, 23]), 1.0)]  # each image has its own row in the student's W
    assert term(Output(s), None, by_image).item() == term(Output(s), None, batch_of(LABELS)).item()
