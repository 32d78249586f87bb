"""Real faces and real networks: what a map between two networks keeps, and what the check says of a student."""

from pathlib import Path

import numpy as np
import pytest

from facedistill.check import check_student
from facedistill.data.dataset import open_dataset
from facedistill.evaluation.protocols.identification import identify, split_gallery
from facedistill.gallery import fit_mapping
from facedistill.models.embed import embed_dataset
from facedistill.models.folder import load_model


@pytest.mark.slow
def test_people_enrolled_by_one_network_are_found_by_another_after_a_map(shared: Path, tmp_path: Path) -> None:
    """mobilefacenet128 enrols, mobilefacenet512 searches; the map is fitted to other people of LFW, without names."""
    old, new = (load_model(shared / "models" / f"mobilefacenet{dim}.onnx") for dim in (128, 512))
    lfw = open_dataset(str(shared / "verification" / "lfw.bin"))
    labels = np.asarray(lfw.labels)
    people = np.flatnonzero(np.bincount(labels) >= 3)[:60]
    searched = lfw.subset(np.flatnonzero(np.isin(labels, people)))
    fitted = lfw.subset(np.flatnonzero(~np.isin(labels, people))[:600])
    first, second = (embed_dataset(model, fitted).fused("sum") for model in (old, new))
    mapping, _ = fit_mapping(first, second)
    before, probes = (embed_dataset(model, searched).fused("sum") for model in (old, new))
    of = np.asarray(searched.labels)
    enrolled, probe = split_gallery(of)
    rank = {
        name: identify(probes[probe], of[probe], gallery[enrolled], of[enrolled], ranks=(1,), resamples=0).rank[1].value
        for name, gallery in (("mapped", mapping(before)), ("enrolled again", probes))
    }
    assert rank["mapped"] > 0.8 and rank["enrolled again"] > 0.97
    told = check_student(new, old, searched)
    assert (
        set(told.faults) == {"space", "dimension"} and "512 dimensions, the teacher's 128" in told.faults["dimension"]
    )
