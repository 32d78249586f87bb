"""False accepts by kind of impostor pair: within a family, across families, and across sources.

Relatives look alike and often share photo, light and camera, so one false-accept rate over all impostors says little
about either kind.
"""

from collections.abc import Mapping

import numpy as np

from facedistill.data import FIW_IDENTITY, Dataset, components, groups
from facedistill.evaluation.protocols.all_pairs import first_bin, tiles

RELATIONS = ("within_family", "across_families", "across_sources")


def kinds_of(dataset: Dataset) -> np.ndarray | None:
    """Return int64 (2, N): family (connected by identity, photo or family name) and source of every image.

    None if no two identities are related, because all impostors are then of one kind.
    """
    family = components(groups(dataset))
    if len(np.unique(family)) == len(np.unique(dataset.labels)):
        return None
    source = np.array([bool(FIW_IDENTITY.search(dataset.class_names[label])) for label in dataset.labels])
    return np.stack([family, source.astype(np.int64)])


def false_accepts(
    probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, kinds: np.ndarray, thresholds: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each kind of impostor pair and each named threshold {"far", "impostors" (accepted), "pairs"}.

    Args:
        probe, gallery: unit rows (N, d) of the same images; if they are two arrays, pairs in both directions.
        labels: int64 (N,). kinds: as `kinds_of` returns it. thresholds: of `all_pairs`, by name (a FAR).
    """
    family, source = kinds
    pairs = dict.fromkeys(RELATIONS, 0)
    accepted = {kind: dict.fromkeys(thresholds, 0) for kind in RELATIONS}
    cuts = {far: first_bin(threshold) for far, threshold in thresholds.items()}
    for rows, columns, bins in tiles(probe, gallery):
        impostor = (labels[rows, None] != labels[columns]) & (bins > 0)
        related = family[rows, None] == family[columns]
        foreign = source[rows, None] != source[columns]
        masks = (impostor & related, impostor & ~related & ~foreign, impostor & foreign)
        for kind, mask in zip(RELATIONS, masks, strict=True):
            found = bins[mask]
            pairs[kind] += len(found)
            for name, cut in cuts.items():
                accepted[kind][name] += int((found >= cut).sum())
    return {
        kind: {
            name: {"far": count / pairs[kind], "impostors": count, "pairs": pairs[kind]}
            for name, count in accepted[kind].items()
        }
        for kind in RELATIONS
        if pairs[kind]
    }
