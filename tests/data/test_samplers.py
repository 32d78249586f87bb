import numpy as np
import pytest
from hypothesis import given, strategies as st

from facedistill.data.samplers import Uniform, make_sampler
from facedistill.errors import UsageError, UserError

labels_of = st.lists(st.integers(0, 6), min_size=6, max_size=60).map(np.array)


@given(labels_of, st.integers(1, 6), st.integers(0, 2**32), st.integers(0, 100))
def test_uniform_gives_every_image_at_most_once(labels: np.ndarray, batch: int, seed: int, epoch: int) -> None:
    sampler = make_sampler("uniform", labels, batch, seed)
    indices, flips = sampler.epoch(epoch)
    assert indices.shape == flips.shape == (sampler.steps, batch) == (len(labels) // batch, batch)
    assert indices.dtype == np.int64 and flips.dtype == bool
    drawn = np.sort(indices.ravel())
    assert len(np.unique(drawn)) == len(drawn) > len(labels) - batch and drawn[0] >= 0 and drawn[-1] < len(labels)


@given(labels_of, st.integers(1, 6), st.integers(0, 2**32))
def test_class_balanced_draws_every_class_and_image_equally_often(labels: np.ndarray, batch: int, seed: int) -> None:
    indices, _ = make_sampler("class_balanced", labels, batch, seed).epoch(0)
    per_class = np.array([(labels[indices] == c).sum() for c in np.unique(labels)])
    assert per_class.max() - per_class.min() <= 1
    for c in np.unique(labels):
        per_image = np.array([(indices == i).sum() for i in np.flatnonzero(labels == c)])
        assert per_image.max() - per_image.min() <= 1


@given(st.lists(st.integers(1, 9), min_size=3, max_size=8), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_pk_gives_p_classes_of_k_images(counts: list[int], p: int, k: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    if len(labels) < p * k:
        return
    indices, _ = make_sampler("pk", labels, p * k, seed, k=k).epoch(1)
    assert len(indices) == len(labels) // (p * k)
    for batch in indices:
        classes, images = np.unique(labels[batch], return_counts=True)
        assert len(classes) == p and (images == k).all()
        for c in classes:
            different = len(np.unique(batch[labels[batch] == c]))
            assert different == min(k, (labels == c).sum())
    for c in np.unique(labels):  # over the epoch a class's images take turns
        per_image = np.array([(indices == i).sum() for i in np.flatnonzero(labels == c)])
        assert per_image.max() - per_image.min() <= 1


@pytest.mark.parametrize("kind", ["uniform", "class_balanced", "pk"])
def test_the_order_depends_on_seed_and_epoch_alone(kind: str) -> None:
    labels = np.arange(400) % 20
    sampler = make_sampler(kind, labels, 40, 7)
    first = sampler.epoch(3)
    sampler.epoch(9)
    again = make_sampler(kind, labels, 40, 7).epoch(3)
    for a, b in zip(first, again):
        assert (a == b).all()
    for other in (sampler.epoch(4), make_sampler(kind, labels, 40, 8).epoch(3)):
        assert (first[0] != other[0]).mean() > 0.9 and 0.3 < (first[1] != other[1]).mean() < 0.7


def test_the_order_of_one_seed_is_pinned() -> None:
    """A run resumed by a later version must go on with the same images."""
    indices, flips = make_sampler("uniform", np.zeros(10), 5, 1).epoch(2)
    rng = np.random.default_rng([1, 2])
    assert indices.ravel().tolist() == rng.permutation(10).tolist()
    assert (flips == (rng.random((2, 5)) < 0.5)).all()


def test_half_of_the_images_are_flipped() -> None:
    _, flips = make_sampler("uniform", np.zeros(10_000), 100, 0).epoch(0)
    assert abs(flips.mean() - 0.5) < 0.02


@pytest.mark.parametrize("kind", ["uniform", "class_balanced", "pk"])
def test_no_image_is_flipped_where_mirror_images_mean_something_else(kind: str) -> None:
    labels = np.arange(1000) % 50
    indices, flips = make_sampler(kind, labels, 100, 0, None, False).epoch(3)
    assert flips.dtype == bool and flips.shape == indices.shape and not flips.any()
    assert (indices == make_sampler(kind, labels, 100, 0).epoch(3)[0]).all(), "the order stays"


def test_faults_are_named() -> None:
    labels = np.arange(12) % 3
    with pytest.raises(UserError, match="12 images are fewer than a batch of 13"):
        make_sampler("uniform", labels, 13, 0)
    with pytest.raises(UsageError, match="did you mean 'uniform'"):
        make_sampler("unifrom", labels, 4, 0)
    with pytest.raises(UsageError, match="sampler 'uniform' has no option 'k'; it has: none"):
        make_sampler("uniform", labels, 4, 0, k=2)
    with pytest.raises(UsageError, match="sampler 'uniform' has no option 'seed'; it has: none"):
        make_sampler("uniform", labels, 4, 0, seed=2)
    with pytest.raises(UsageError, match="not a multiple of k = 3"):
        make_sampler("pk", labels, 4, 0, k=3)
    with pytest.raises(UserError, match="4 classes a batch, but the data has 3"):
        make_sampler("pk", labels, 8, 0, k=2)


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.6, 3.0]), min_size=8, max_size=60).map(np.array), st.integers(0, 99))
def test_uniform_gives_an_image_as_often_as_its_weight_says(weights: np.ndarray, seed: int) -> None:
    sampler = make_sampler("uniform", np.arange(len(weights)), 1, seed, weights)
    counts = np.bincount(sampler.epoch(2)[0].ravel(), minlength=len(weights))
    for weight in np.unique(weights):
        of_weight = counts[weights == weight]
        assert of_weight.sum() == round(weight * len(of_weight))
        assert of_weight.min() >= np.floor(weight) and of_weight.max() <= np.ceil(weight)


def test_whole_weights_are_exact_and_no_weights_change_nothing() -> None:
    weights = np.array([2.0] * 5 + [1.0] * 6)
    indices, _ = make_sampler("uniform", np.arange(11), 4, 0, weights).epoch(3)
    assert np.bincount(indices.ravel()).tolist() == [2] * 5 + [1] * 6
    plain = make_sampler("pk", np.arange(40) % 8, 8, 0, None, k=2).epoch(1)[0]
    assert (plain == make_sampler("pk", np.arange(40) % 8, 8, 0, k=2).epoch(1)[0]).all()


@pytest.mark.parametrize(("kind", "options"), [("class_balanced", {}), ("pk", {"k": 2})])
def test_classes_come_in_proportion_to_their_weights(kind: str, options: dict[str, int]) -> None:
    labels = np.arange(400) % 40
    weights = np.where(labels < 20, 1.0, 0.25)
    sampler = make_sampler(kind, labels, 20, 0, weights, **options)
    assert sampler.steps == 250 // 20
    drawn = np.concatenate([sampler.epoch(e)[0] for e in range(30)])
    for batch in drawn if kind == "pk" else []:
        assert len(np.unique(labels[batch])) == 10
    of_class = np.bincount(labels[drawn.ravel()])
    assert of_class[:20].mean() / of_class[20:].mean() == pytest.approx(4, rel=0.1)


def test_weights_that_cannot_be_heeded_are_named() -> None:
    labels = np.arange(12) % 3
    with pytest.raises(UserError, match=r"data.weights: 2 images an epoch are fewer than a batch of 4"):
        make_sampler("uniform", labels, 4, 0, np.full(12, 0.2))
    with pytest.raises(UserError, match=r"pk sampler: 3 classes a batch, but by their weights about 1 classes come"):
        make_sampler("pk", labels, 6, 0, np.where(labels == 0, 4.0, 0.4), k=2)

    class Own(Uniform):
        takes_weights = False

    with pytest.raises(UsageError, match=r"data.weights: the sampler Own takes none; use uniform or class_balanced"):
        Own(labels, 4, 0).weigh(np.ones(12))
