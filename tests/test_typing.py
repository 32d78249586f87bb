"""An editor and a type checker see the public names: mypy reads a small program of a user's."""

import subprocess
import sys
from pathlib import Path

import facedistill

SOURCES = Path(facedistill.__file__).parents[1]
PROGRAM = """
import facedistill as fd

teacher = fd.load_model("teacher")
student = fd.Model(fd.create_backbone("mobilefacenet", embedding_dim=teacher.embedding_dim))
dataset = fd.open_dataset("photos")
batch = dataset.batch([0, 1])
assert teacher.classifier is not None
head = fd.FrozenMarginSoftmax(teacher.classifier.select(dataset.class_names), margin=fd.ArcFace(0.5), scale=64)
head(student(batch.images), batch.labels).backward()
reveal_type(teacher)
reveal_type(teacher.classifier)
reveal_type(fd.centres(fd.embed_dataset(teacher, dataset)))
reveal_type(fd.load_recipe("proxylesskd").schedule.lr)
reveal_type(fd.train(fd.load_recipe("proxylesskd"), "run"))
"""
WRONG = """
import facedistill as fd

fd.load_model(3)
fd.nonsense
fd.load_recipe("proxylesskd").schedule.epoch
fd.ArcFace(margin=0.5)
"""


def _mypy(folder: Path, **programs: str) -> list[list[str]]:
    """What mypy says of each program, a line for each remark."""
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "--config-file="]
    command += [f"{name}.py" for name in programs]
    done = subprocess.run(
        [*command, "--ignore-missing-imports"],
        cwd=folder,
        env={"MYPYPATH": str(SOURCES), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return [[line for line in done.stdout.splitlines() if line.startswith(f"{name}.py")] for name in programs]


def test_a_users_program_is_checked(tmp_path: Path) -> None:
    said, wrong = _mypy(tmp_path, right=PROGRAM, wrong=WRONG)
    assert not [line for line in said if "error" in line]
    revealed = [line.partition('is "')[2].rstrip('"') for line in said]
    assert [name.removeprefix("facedistill.") for name in revealed] == [
        "models.model.Model",
        "head.classifier.Classifier",
        "head.classifier.Classifier",
        "float",
        "pathlib.Path",
    ]
    codes = [line.rpartition("[")[2] for line in wrong if "error" in line]
    assert codes == ["arg-type]", "attr-defined]", "attr-defined]", "call-arg]"]
