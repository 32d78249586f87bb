"""The training images: open them, in memory if they fit, split off held-out identities, embed them by a teacher."""

from facedistill.data import Dataset, Embeddings, hold_out, long_tail, open_union
from facedistill.errors import UsageError
from facedistill.files import cache_dir
from facedistill.models import Model, embed_dataset
from facedistill.recipe import Data
from facedistill.training.subsets import take_subset

IN_MEMORY_BYTES = 2 << 30


def open_images(data: Data) -> Dataset:
    """Open the data sets of a recipe as one."""
    source = open_union(data.sets, data.columns, data.classes, data.weights)
    return Dataset(source, max_unreadable=data.max_unreadable)


def open_training_data(data: Data, of_images: bool = False) -> tuple[Dataset, Dataset | None]:
    """Open the training images, in memory if they fit, and split off the held-out identities, or images: `hold_out`.

    A long tail is made of what is left for training. A subset of the classes is taken last: with the same hold-out,
    subset teachers and their student hold out the same images.
    """
    dataset = open_images(data)
    fits = len(dataset) * dataset.sample_bytes <= IN_MEMORY_BYTES
    if data.in_memory or (data.in_memory is None and fits):
        dataset = dataset.in_memory()
    train, held_out = dataset, None
    if data.hold_out:
        train, held_out = hold_out(dataset, data.hold_out, data.hold_out_seed, of_images)
    if data.imbalance > 1:
        if train.multi_hot is not None:
            raise UsageError(
                f"data.imbalance={data.imbalance:g}: images of {train.source.path} may have several labels, whose "
                "numbers cannot be chosen one by one; set 1"
            )
        train = long_tail(train, data.imbalance, data.imbalance_seed)
    if data.subset is not None:
        train = take_subset(train, data.subset)
        held_out = held_out and _those_of(train, held_out)
    return train, held_out


def _those_of(train: Dataset, held_out: Dataset) -> Dataset | None:
    """Return the held-out images of the classes or labels that remain in training; of other classes, all of them."""
    if train.multi_hot is None:
        both = set(train.class_names) & set(held_out.class_names)
        return held_out.with_labels(sorted(both)) if both else held_out
    assert held_out.multi_hot is not None
    columns = [held_out.label_names.index(name) for name in train.label_names]
    return held_out.with_labels(train.label_names) if held_out.multi_hot[:, columns].any() else None


def embed_training_images(
    models: dict[str, Model], train: Dataset, mirror: bool = True
) -> tuple[dict[str, Embeddings], Dataset]:
    """Embed the training set, mirror images too if `mirror`, cached on disk. Unreadable images are removed from it."""
    embeddings: dict[str, Embeddings] = {}
    for name, model in models.items():
        embeddings[name] = embed_dataset(model, train, mirror, cache=cache_dir() / "embeddings")
        if len(embeddings[name]) < len(train):
            readable = set(embeddings[name].keys)
            return embed_training_images(
                models, train.subset([i for i, key in enumerate(train.keys) if key in readable]), mirror
            )
    return embeddings, train
