"""fit_of against brute force, on tables of embeddings made by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from check_toys import table_of
from facedistill.check import fit, fit_of, require_fit
from facedistill.data.embeddings import Embeddings
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier
from facedistill.head.margins import AdaFace, ArcFace, CombinedMargin, CosFace, Margin, SphereFace, margin_softmax
from facedistill.head.starts import centres

ARC = ArcFace(0.5)


def unit_rows(table: Embeddings) -> torch.Tensor:
    return torch.from_numpy(table.fused("sum"))


def with_labels(table: Embeddings, labels: np.ndarray) -> Embeddings:
    return Embeddings(table.keys, table.class_names, labels, table.vectors)


def test_centres_are_judged_without_the_image_itself() -> None:
    table = table_of(noise=2.0)
    found = fit_of(centres(table), table, ARC, 64)
    x, labels = unit_rows(table), torch.from_numpy(table.labels)
    right = 0
    for i in range(len(x)):  # brute force: make the centres anew without image i
        rows = []
        for c in range(len(table.class_names)):
            members = [j for j in range(len(x)) if labels[j] == c and j != i]
            rows.append(F.normalize(x[members].mean(0), dim=0))
        right += int((torch.stack(rows) @ x[i]).argmax() == labels[i])
    assert found.leave_one_out
    assert found.own_class == pytest.approx(right / len(x), abs=1e-6)
    in_sample = ((x @ centres(table).weight.T).argmax(1) == labels).float().mean().item()
    assert found.own_class < in_sample - 0.05  # the noise is such that leaving out matters


def test_classes_of_one_image_are_left_out_and_counted() -> None:
    table = table_of(classes=10)
    labels = table.labels.copy()
    labels[:3] = [10, 11, 12]
    table = Embeddings(table.keys, [*table.class_names, "x", "y", "z"], labels, table.vectors)
    found = fit_of(centres(table), table, ARC, 64)
    assert (found.single, found.images) == (3, len(labels) - 3)


def test_only_classes_of_one_image_is_an_error() -> None:
    table = table_of(classes=5, images=1)
    with pytest.raises(UserError, match="several images per class"):
        fit_of(centres(table), table, ARC, 64)


def test_stored_centres_are_recognised_in_any_order_and_among_more_classes() -> None:
    table = table_of()
    own = centres(table)
    few = np.flatnonzero(table.labels < 20)
    part = Embeddings([table.keys[i] for i in few], table.class_names, table.labels[few], table.vectors[few])
    assert fit_of(own.select(own.class_names[::-1]), part, ARC, 64).leave_one_out


def test_centres_of_other_images_are_taken_as_they_are() -> None:
    table = table_of()
    half = np.arange(len(table)) % 2 == 0
    part = Embeddings(table.keys, table.class_names, table.labels[half], table.vectors[half])
    found = fit_of(centres(table), part, ARC, 64)
    assert not found.leave_one_out and found.single == 0
    x, labels = unit_rows(part), torch.from_numpy(part.labels)
    expected = ((x @ centres(table).weight.T).argmax(1) == labels).float().mean().item()
    assert found.own_class == pytest.approx(expected)


def test_loss_cosine_and_crowding_are_those_of_the_definitions() -> None:
    table = table_of()
    own = centres(table)
    found = fit_of(own, table, ARC, 32)
    x, labels = unit_rows(table), torch.from_numpy(table.labels)
    assert found.loss == pytest.approx(margin_softmax(x, labels, own.weight, ARC, 32).mean().item(), rel=1e-4)
    assert found.cosine == pytest.approx((x * own.weight[labels]).sum(1).mean().item(), abs=1e-6)
    cosines = own.weight @ own.weight.T
    apart = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    assert found.crowding == pytest.approx(apart.mean().item(), abs=1e-5)
    assert found.chance_loss == pytest.approx(np.log(len(own)))


def test_a_narrow_cone_is_crowded() -> None:
    table = table_of()
    shifted = Embeddings(table.keys, table.class_names, table.labels, table.vectors + 20)
    assert fit_of(centres(shifted), shifted, ARC, 64).crowding > 0.8


@pytest.mark.parametrize("origin", ["centres", "teacher"])
def test_permuted_names_fit_nowhere_and_are_refused(origin: str) -> None:
    table = table_of()
    own = centres(table)
    wrong = Classifier(own.weight.roll(1, 0), own.class_names, origin, own.counts if origin == "centres" else None)
    found = fit_of(wrong, table, ARC, 64)
    assert found.own_class < 0.2 and not found.leave_one_out
    with pytest.raises(UserError, match=r"nearest to their own row of W .*check\.own_class"):
        require_fit(wrong, table, ARC, 64, least=0.5)
    assert require_fit(own, table, ARC, 64, least=0.5).own_class > 0.9
    assert require_fit(wrong, table, ARC, 64, least=0.0) == found


def test_two_exchanged_names_are_found_by_name() -> None:
    table = table_of()
    own = centres(table)
    names = list(own.class_names)
    names[3], names[7] = names[7], names[3]
    found = fit_of(Classifier(own.weight, names), table, ARC, 64)
    assert found.lost_classes == ["c007", "c003"] or found.lost_classes == ["c003", "c007"]
    assert fit_of(own, table, ARC, 64).lost_classes == []


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_swapped_labels_are_counted_without_inventing_any(share: float) -> None:
    table = table_of(classes=100, dim=128, images=8)
    assert fit_of(centres(table), table, ARC, 64).misnamed < 0.01
    rng = np.random.default_rng(1)
    labels = table.labels.copy()
    moved = rng.choice(len(labels), round(share * len(labels)), replace=False)
    labels[moved] = labels[np.roll(moved, 1)]
    faulty = with_labels(table, labels)
    assert 0.5 * share < fit_of(centres(faulty), faulty, ARC, 64).misnamed <= share


def test_missing_classes_and_other_dimensions_are_one_clear_line() -> None:
    table = table_of()
    with pytest.raises(UserError, match=r"2 of 30 classes of the data have no row in W \(c000, c001\)"):
        fit_of(centres(table).select(table.class_names[2:]), table, ARC, 64)
    with pytest.raises(UserError, match="32 dimensions, its classifier 8"):
        fit_of(Classifier(torch.randn(30, 8), table.class_names), table, ARC, 64)


@pytest.mark.parametrize(
    ("margin", "largest"), [(ArcFace(0.2), 0.5), (CosFace(0.2), 0.35), (SphereFace(1.2), 1.7), (AdaFace(0.2), 0.4)]
)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_suggested_size_is_the_largest_that_half_the_embeddings_meet(
    margin: Margin, largest: float, noise: float
) -> None:
    table = table_of(noise=noise)
    own = centres(table)
    before = margin.size
    found = fit_of(own, table, margin, 64)
    assert margin.size == before
    x, labels = unit_rows(table), torch.from_numpy(table.labels)
    cos = x @ own.weight.T
    own_cos = cos.gather(1, labels[:, None])[:, 0]
    other = cos.scatter(1, labels[:, None], -1).amax(1)

    def met(size: float) -> float:
        changed = type(margin)(size)
        sizes = changed.sizes(torch.from_numpy(table.vectors.mean(1)).norm(dim=1))
        return (changed.target(own_cos, sizes) > other).float().mean().item()

    size = found.suggested_size
    assert size is not None
    assert met(size) >= 0.5 or size == (1.0 if isinstance(margin, SphereFace) else 0.0)
    assert size == largest or met(size + 0.05) < 0.5


def test_the_suggested_scale_has_the_smallest_loss() -> None:
    table = table_of(noise=1.0)
    own = centres(table)
    found = fit_of(own, table, ARC, 64)
    x, labels = unit_rows(table), torch.from_numpy(table.labels)
    assert found.suggested_size is not None
    best = ArcFace(found.suggested_size)
    losses = {s: margin_softmax(x, labels, own.weight, best, s).mean().item() for s in fit.SUGGESTED_SCALES}
    assert found.suggested_scale == min(losses, key=losses.__getitem__)
    assert found.suggested_scale not in (fit.SUGGESTED_SCALES[0], fit.SUGGESTED_SCALES[-1])


def test_a_margin_without_a_single_size_gets_a_scale_alone() -> None:
    table = table_of()
    found = fit_of(centres(table), table, CombinedMargin(1.0, 0.3, 0.2), 64)
    assert found.suggested_size is None and found.suggested_scale in fit.SUGGESTED_SCALES


def test_large_sets_are_sampled_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(noise=2.0)
    whole = fit_of(centres(table), table, ARC, 64)
    monkeypatch.setattr(fit, "COMPARED_ROWS", 7)
    blocks = fit_of(centres(table), table, ARC, 64)
    assert blocks.own_class == whole.own_class and blocks.misnamed == whole.misnamed
    monkeypatch.setattr(fit, "MOST_IMAGES", 50)
    part = fit_of(centres(table), table, ARC, 64)
    assert part.images == 50 and part.leave_one_out
    assert part.own_class == pytest.approx(whole.own_class, abs=0.25)
