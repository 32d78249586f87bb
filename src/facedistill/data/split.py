"""Hold out identities without leaks: a person's images, relatives and group photos are all on one side."""

import re

import numpy as np

from facedistill.data.dataset import Dataset
from facedistill.errors import UsageError, UserError

FIW_IDENTITY = re.compile(r"(?:^|/)fiw_([^_/]+)_")  # a set of several may precede it
PHOTO = re.compile(r"(P\d+)_face\d+")


def groups(dataset: Dataset) -> list[tuple[str, ...]]:
    """Return the ties of every image to others, one tuple per image.

    Every image has "identity NAME". An identity `fiw_<family>_<member>` (Families In the Wild) adds "family FAMILY",
    and a file named Pnnnnn_face<k> adds "photo FAMILY/Pnnnnn": one photo often shows several relatives.
    """
    found = []
    for label, key in zip(dataset.labels.tolist(), dataset.keys, strict=True):
        name = dataset.class_names[label]
        ties = [f"identity {name}"]
        if family := FIW_IDENTITY.search(name):
            ties.append(f"family {family[1]}")
            if photo := PHOTO.match(key.rpartition("/")[2]):
                ties.append(f"photo {family[1]}/{photo[1]}")
        found.append(tuple(ties))
    return found


def components(ties: list[tuple[str, ...]]) -> np.ndarray:
    """Number the connected components of images that share a tie: int64 (N,), in order of first appearance."""
    parent: dict[str, str] = {}

    def root(tie: str) -> str:
        while parent.setdefault(tie, tie) != tie:
            parent[tie] = tie = parent[parent[tie]]
        return tie

    for first, *others in ties:
        for other in others:
            parent[root(other)] = root(first)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(t[0]), len(numbers)) for t in ties], dtype=np.int64)


def hold_out(dataset: Dataset, share: float, seed: int, of_images: bool = False) -> tuple[Dataset, Dataset]:
    """Split into (train, held out): whole components with up to `share` of the identities are held out.

    Components of `groups` are drawn in an order that depends on `seed` alone; one that would exceed the share is
    skipped. Of several data sets, people of the first labelled one are drawn: the same as if it were the only one.
    With them go their images in the other sets. If an image may have several labels, about the share of each label's
    images is held out, see `stratified`. With `of_images`, for classification, it is the share of each class's images,
    see `of_each_class`. Raises UserError if no component fits, e.g. because all identities are tied together, or if
    nobody is known.
    """
    if not 0 < share < 1:
        raise UsageError(f"hold-out share {share}: expected a number between 0 and 1")
    if of_images and dataset.multi_hot is None:
        mask = of_each_class(dataset.labels, share, seed) & ~dataset.unlabelled
        if not mask.any():
            raise UserError(
                f"{dataset.source.path}: no class has enough images to hold out {share:g} of them; hold out more, or "
                "nothing (data.hold_out=0)"
            )
        return dataset.subset(np.flatnonzero(~mask)), dataset.subset(np.flatnonzero(mask))
    component = components(groups(dataset))
    if dataset.extra.all():
        raise UserError(f"{dataset.source.path}: no image has a label, so nobody can be held out; set data.hold_out=0")
    if dataset.multi_hot is not None:
        mask = stratified(component, dataset.multi_hot, share, seed)
        if not mask.any():
            raise UserError(
                f"{dataset.source.path}: a hold-out of {share:g} of {len(mask):,} images in {component.max() + 1:,} "
                "groups is empty; hold out more, or nothing (data.hold_out=0)"
            )
        return dataset.subset(np.flatnonzero(~mask)), dataset.subset(np.flatnonzero(mask))
    pairs = np.unique(np.stack([component, dataset.labels], axis=1)[~dataset.extra], axis=0)
    sizes = np.bincount(pairs[:, 0], minlength=component.max() + 1)  # identities in each component
    wanted, taken, held = share * sizes.sum(), 0, np.zeros(len(sizes), dtype=bool)
    candidates = np.flatnonzero(sizes)
    for c in candidates[np.random.default_rng(seed).permutation(len(candidates))]:
        if taken + sizes[c] <= wanted:
            held[c] = True
            taken += sizes[c]
    if not held.any():
        raise UserError(
            f"{dataset.source.path}: no group of related classes is small enough for a hold-out of {share:g}: "
            f"{sizes.sum()} classes are tied together in {len(candidates)} groups, the smallest of "
            f"{sizes[candidates].min()}; hold out more, or nothing (data.hold_out=0)"
        )
    mask = held[component]
    return dataset.subset(np.flatnonzero(~mask)), dataset.subset(np.flatnonzero(mask))


def of_each_class(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which images to hold out, bool (N,): the share of each class's, rounded; one stays for training."""
    counts = np.bincount(labels)
    return place_in_class(labels, seed) < np.minimum(np.floor(share * counts + 0.5), counts - 1)[labels]


def place_in_class(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each image in a random order of its own class, int64 (N,); it depends on `seed` alone."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def stratified(component: np.ndarray, multi_hot: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which images to hold out, bool (N,): whole components, with about `share` of the images of each label.

    Greedy iterative stratification (Sechidis et al., ECML PKDD 2011), with whole components: the label that has the
    fewest images left decides first where they go, so that rare labels are in both parts. A label keeps at least one
    image for training.

    Args:
        component: int64 (N,), of each image. multi_hot: bool (N, L).
    """
    number, labels = int(component.max()) + 1, multi_hot.shape[1]
    images = np.bincount(component, minlength=number)
    having = np.zeros((number, labels + 1), dtype=np.int64)  # images of each label in each component; last: all images
    np.add.at(having[:, :labels], component, multi_hot)
    having[:, labels] = images
    total = having.sum(0)
    wanted = np.minimum(np.floor(share * total + 0.5), np.maximum(total - 1, 0))
    room = wanted
    held, free = np.zeros(number, dtype=bool), np.ones(number, dtype=bool)
    order = np.random.default_rng(seed).permutation(number)
    while free.any():
        left = having[free, :labels].sum(0)
        rare = int(np.where(left > 0, left, total[labels] + 1).argmin()) if (left > 0).any() else labels
        for c in order[free[order] & (having[order, rare] > 0)]:
            after, free[c] = room - having[c], False
            if after[rare] >= 0 and after[labels] >= 0:
                held[c], room = True, after
    return held[component]
