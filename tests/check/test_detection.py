"""The detection table's faults, planted on a real teacher: what docs/check.md promises still holds."""

import importlib
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from facedistill.data.dataset import open_dataset

IDENTITIES = 60
# fault -> what every origin of W must find, beside the warning about the loss
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "no fault": (set(), set()),
    "BGR for RGB": ({"input"}, set()),
    "/127.5 - 1 for 0..255": ({"input"}, set()),
    "all class names permuted": ({"own_class"}, set()),
    "two class names exchanged": (set(), {"names"}),
    "20% of the labels swapped": (set(), {"labels"}),
    "10% of the labels swapped": (set(), {"labels"}),
    "W lacks 10 of the classes": ({"classes"}, set()),
    "10 more rows than class names": ({"refused"}, set()),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("check_detection")


@pytest.fixture(scope="module")
def bench(script: ModuleType, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """mobileface256, the weakest of the real teachers, and 60 people of the training faces."""
    folder = tmp_path_factory.mktemp("faces")
    people: set[str] = set()
    with tarfile.open(shared / "train.tgz", "r|gz") as archive:
        for member in archive:
            if not member.isfile():
                continue
            people.add(Path(member.name).parent.name)
            if len(people) > IDENTITIES:
                break
            archive.extract(member, folder, filter="data")
    root = next(folder.rglob("*.jpg")).parents[1]
    teacher = script.Remembering(shared / "models" / "mobileface256.onnx")
    return script.Bench(teacher, open_dataset(root), IDENTITIES, seed=0)


@pytest.mark.parametrize("fault", EXPECTED)
def test_planted_faults_are_found(script: ModuleType, bench: Any, fault: str) -> None:
    case = next(c for c in script.CASES if c.name == fault)
    faults, warnings = EXPECTED[fault]
    for column in case.columns:
        found = script.outcome(case, bench, column, np.random.default_rng(0))
        assert faults <= set(found["faults"]), (column, found)
        assert warnings <= set(found["warnings"]), (column, found)
        if not faults:
            assert not found["faults"] and set(found["warnings"]) <= warnings | {"loss"}, (column, found)
        if "input" in faults:
            assert found["named"] == script.TRUE
