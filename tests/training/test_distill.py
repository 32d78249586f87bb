"""What `distill` decides: what W starts from, whether to go on, and what it says of few identities."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facedistill.errors import UserError
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import Model
from facedistill.recipe.schema import Recipe
from facedistill.training import distill as module
from facedistill.training.distill import distillation_recipe
from tiny_world import Tiny

Prepared = tuple[Recipe, list[str]]
Prepare = Callable[..., Prepared]


@pytest.fixture
def prepared(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Prepare:
    """Prepare on people whom the teacher does not know, or on `data`: the recipe, and the lines printed."""
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))

    def run(*overrides: str, method: str | None = None, data: Path = tiny.pairs) -> Prepared:
        recipe = distillation_recipe(
            tiny.teacher, str(data), "mobilefacenet", tmp_path / "run", method, ["check.own_class=0", *overrides]
        )
        return recipe, capsys.readouterr().out.splitlines()

    return run


def few(said: list[str]) -> list[str]:
    return [line for line in said if "classes are few" in line]


def test_w_is_the_teachers_where_it_knows_the_people_and_else_their_centres(prepared: Prepare, tiny: Tiny) -> None:
    recipe, said = prepared(data=tiny.photos)
    assert recipe.method.classifier.start is None and not any("W starts" in line for line in said)
    recipe, said = prepared()
    assert recipe.method.classifier.start == "centres" and "lacks 8 of 8 classes" in said[0]
    recipe, said = prepared("method.classifier.start=fitted")
    assert recipe.method.classifier.start == "fitted" and not any("W starts" in line for line in said)
    assert prepared(method="scratch")[1] == [], "no W of the teacher, nothing to check"


def test_people_whom_nobody_knows_have_a_row_an_image_and_nobody_is_held_out(tiny: Tiny, prepared: Prepare) -> None:
    recipe, said = prepared(data=Path(f"unlabelled:{tiny.photos}"))
    assert recipe.method.classifier.start == "instances" and recipe.data.hold_out == 0
    assert "W starts from its embeddings" in said[0] and said[1].startswith("not checked: 0 classes have several")
    assert "--method proxylesskd_instances_l2 schedule.lr=0.3" in said[2]
    assert not any("try" in line for line in prepared(method="proxylesskd", data=Path(f"unlabelled:{tiny.photos}"))[1])
    with pytest.raises(UserError, match="72 of 72 images have no label, and the term 'margin_softmax' needs one"):
        prepared(method="adadistill", data=Path(f"unlabelled:{tiny.photos}"))


def test_what_was_better_on_few_identities(prepared: Prepare, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and only where the program chose class centres; what is trained stays as it was."""
    recipe, said = prepared()
    (line,) = few(said)
    assert line.startswith("8 classes are few: ") and "docs/comparison.md" in line
    assert "--method l2kd schedule.lr=1" in line and "--method proxylesskd_instances_l2 schedule.lr=0.3" in line
    for named in (prepared(method="proxylesskd"), prepared("method.name=proxylesskd")):
        assert named[0] == recipe and not few(named[1])
    assert not few(prepared(data=tiny.photos)[1]), "the teacher's own classifier knows these people: not compared"
    for override in ("method.classifier.start=centres", "method.terms.embedding_l2=4"):
        assert not few(prepared(override)[1])
    for method in ("margin_distillation", "proxylesskd_instances_l2", "l2kd"):
        assert not few(prepared(method=method)[1])
    monkeypatch.setattr("facedistill.training.distill.FEW_IDENTITIES", 8)
    assert not few(prepared()[1])


def test_a_run_that_was_begun_is_not_checked_again(prepared: Prepare, tmp_path: Path) -> None:
    recipe, said = prepared()
    assert "check passed" in "\n".join(said)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("came to nothing")
    assert "check passed" in "\n".join(prepared()[1])
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "step00000001.pt").write_text("begun")
    again, said = prepared()
    assert again == recipe and "check" not in "\n".join(said)


def test_methods_without_an_inherited_w_are_checked_too(prepared: Prepare, tiny: Tiny, tmp_path: Path) -> None:
    """Whether the teacher sees the images as it was made to; not whether it knows their classes."""
    said = prepared("check.own_class=1", method="l2kd", data=tiny.photos)[1]
    assert any(line.startswith("input, ") for line in said) and said[-1].startswith("check passed")
    flat = tmp_path / "flat" / "all"
    flat.mkdir(parents=True)
    for file in sorted(tiny.photos.rglob("*.png"))[:8]:
        (flat / file.name).write_bytes(file.read_bytes())
    (line,) = prepared("data.hold_out=0", "method.classifier.start=instances", data=flat.parent)[1]
    assert line.startswith("not checked: 1 classes have several images; 10 are needed to tell")


def test_kd_trains_against_the_teachers_w_so_its_class_order_is_checked(prepared: Prepare, tiny: Tiny) -> None:
    said = prepared("check.own_class=0.1", method="kd", data=tiny.photos)[1]
    assert any(line.startswith("W (teacher, 12 classes)") for line in said)
    with pytest.raises(UserError, match="do not fit"):
        prepared(method="kd")  # people whom the teacher does not know


def test_a_teacher_without_a_network_cannot_be_checked(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(tiny.teacher)
    save_model(Model(None, classifier=model.classifier, space=model.space), tmp_path / "table")
    recipe = distillation_recipe(tmp_path / "table", str(tiny.photos), "mobilefacenet", tmp_path / "run")
    assert recipe.method.classifier.start is None
    assert capsys.readouterr().out.startswith("not checked: only the teacher's embeddings are known")


def test_what_does_not_fit_is_refused(prepared: Prepare, tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"do not fit, see above; nothing was trained.*or lower check.own_class"):
        prepared("check.own_class=1", data=tiny.photos)


@pytest.mark.parametrize(
    ("images", "extra", "share"),
    [(10, 0, 0.1), (500_000, 9, 0.1), (1_000_000, 0, 0.05), (42_000_000, 1000, 0.00119), (0, 9, 0.0)],
)
def test_the_hold_out_of_a_huge_set_is_bounded(images: int, extra: int, share: float) -> None:
    dataset = SimpleNamespace(extra=np.repeat([False, True], [images, extra]))
    assert module._held_out(dataset) == pytest.approx(share)  # type: ignore[arg-type]
