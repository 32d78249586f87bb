"""Where W starts: random, centres, instances, fitted."""

import numpy as np
import torch

from facedistill.data.embeddings import Embeddings
from facedistill.head import starts
from facedistill.head.classifier import Classifier
from facedistill.head.margins import AdaFace, ArcFace, margin_softmax


def _embeddings(noise: float = 0.6, per_class: int = 12, classes: int = 8, dim: int = 16) -> Embeddings:
    """Classes around random directions, all inside a cone, so that centres are not the best W."""
    rng = np.random.default_rng(3)
    means = rng.normal(size=(classes, dim)) + 2 * np.eye(1, dim)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    vectors = (means[labels][:, None] + noise * rng.normal(size=(len(labels), 2, dim))).astype(np.float32)
    vectors *= rng.uniform(0.5, 2, size=(len(labels), 1, 1)).astype(np.float32)
    return Embeddings([f"{i}.jpg" for i in range(len(labels))], [f"c{k}" for k in range(classes)], labels, vectors)


def test_random_rows_depend_on_the_seed_alone() -> None:
    a, b, c = (starts.random_classifier(["x", "y", "z"], 64, seed) for seed in (1, 1, 2))
    torch.randn(5)
    assert torch.equal(a.weight, b.weight) and not torch.equal(a.weight, c.weight)
    assert (a.origin, a.class_names) == ("random", ["x", "y", "z"])
    many = starts.random_classifier([str(i) for i in range(2000)], 16, 0).weight
    assert float(many.mean(0).norm()) < 0.06  # from the whole sphere


def test_centres_are_the_normalised_mean_of_unit_embeddings() -> None:
    embeddings = _embeddings()
    found = starts.centres(embeddings)
    for k in range(8):
        both = embeddings.vectors[embeddings.labels == k].astype(np.float64).sum(1)
        mean = (both / np.linalg.norm(both, axis=1, keepdims=True)).mean(0)
        np.testing.assert_allclose(found.weight[k].numpy(), mean / np.linalg.norm(mean), atol=1e-6)
    assert (found.origin, found.class_names) == ("centres", embeddings.class_names)


def test_counts_let_an_images_own_share_be_taken_out() -> None:
    embeddings = _embeddings(per_class=5)
    embeddings.labels[embeddings.labels == 7] = 6  # one class of 10
    embeddings.class_names = embeddings.class_names[:7]
    found = starts.centres(embeddings)
    assert found.counts is not None and found.counts.tolist() == [5] * 6 + [10]
    units = embeddings.fused("sum").astype(np.float64)
    image, k = 0, int(embeddings.labels[0])
    mine = np.flatnonzero(embeddings.labels == k)
    sums = units[mine].sum(0)
    without = units[mine[mine != image]].mean(0)
    np.testing.assert_allclose((sums - units[image]) / (int(found.counts[k]) - 1), without, atol=1e-12)


def test_classes_without_an_image_have_no_row() -> None:
    embeddings = _embeddings(per_class=5)
    expected = [start(embeddings) for start in (starts.centres, _fit)]
    embeddings.labels = np.array([1, 2, 4, 5, 6, 7, 8, 10])[embeddings.labels]
    names = embeddings.class_names
    embeddings.class_names = ["none", *names[:2], "nobody", *names[2:7], "nothing", names[7], "last"]
    for start, whole in zip((starts.centres, _fit), expected, strict=True):
        found = start(embeddings)
        assert found.class_names == names and torch.equal(found.weight, whole.weight)


def _fit(embeddings: Embeddings) -> Classifier:
    return starts.fit_classifier(embeddings, ArcFace(0.2), 16.0, epochs=1)


def test_instances_are_the_images_themselves() -> None:
    embeddings = _embeddings(per_class=2)
    found = starts.instances(embeddings)
    assert (found.origin, found.class_names) == ("instances", embeddings.keys)
    np.testing.assert_allclose(found.weight.numpy(), embeddings.fused("sum"), atol=1e-6)


def test_fitted_beats_the_centres_it_starts_from_and_is_deterministic() -> None:
    embeddings = _embeddings(noise=0.9, per_class=30)
    margin, scale = ArcFace(0.2), 16.0
    centres = starts.centres(embeddings)
    before = torch.get_rng_state()
    fitted = starts.fit_classifier(embeddings, margin, scale, epochs=10, batch=64, lr=1e-2)
    assert torch.equal(torch.get_rng_state(), before)  # it draws from a generator of its own
    again = starts.fit_classifier(embeddings, margin, scale, epochs=10, batch=64, lr=1e-2)
    assert torch.equal(fitted.weight, again.weight) and fitted.origin == "fitted" and fitted.counts is None
    vectors, labels = torch.from_numpy(embeddings.vectors[:, 0]), torch.from_numpy(embeddings.labels)

    def judged(weight: torch.Tensor) -> tuple[float, float]:
        right = ((vectors @ weight.T).argmax(1) == labels).float().mean()
        return right.item(), margin_softmax(vectors, labels, weight, margin, scale).mean().item()

    (right, loss), (right_before, loss_before) = judged(fitted.weight), judged(centres.weight)
    assert right >= right_before > 0.7 and loss < 0.9 * loss_before


def test_fitting_adapts_a_copy_of_the_margin() -> None:
    """The margin is the recipe's own: what fitting W sees must not stand in it when training starts."""
    margin, still = AdaFace(momentum=0.5), AdaFace(momentum=0.0)
    adapted, other = (starts.fit_classifier(_embeddings(per_class=3), of, 16.0, epochs=1) for of in (margin, still))
    assert margin.mean.item() == 20 and margin.std.item() == 100
    assert not torch.equal(adapted.weight, other.weight)
