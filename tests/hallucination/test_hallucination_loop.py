"""The stages on tiny images: they end, resume to the same bits, learn, and refuse what does not fit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facedistill.errors import UsageError, UserError
from facedistill.hallucination import loop
from facedistill.hallucination.fhn import FHN, PRESETS, Preset, create_fhn
from facedistill.hallucination.loop import train
from facedistill.hallucination.losses import feature_loss, is_fake, is_real, pixel_loss
from facedistill.hallucination.stages import AdversarialStage, Given, PairStage, Stage
from facedistill.hallucination.starts import network_of
from facedistill.hallucination.storing import load_fhn
from facedistill.models import load_model
from facedistill.recipe import make_recipe
from facedistill.run import LOG, latest_checkpoint, read_log
from facedistill.training import train as train_student
from tiny_world import Tiny

DATA = "synthetic:identities=6,images=3,size=32,seed=1,priors=true"


def recipe(**changes: Any) -> Any:
    raw: dict[str, Any] = {
        "data": {"train": DATA, "hold_out": 0.34},
        "schedule": {"optimizer": "adamw", "lr": 1e-3, "epochs": 1, "batch": 4, "log_steps": 1},
        "hallucination": {"size": 32, "degrade": {"smallest": 8, "largest": 16}},
    }
    for key, value in changes.items():
        raw[key] = raw.get(key, {}) | value if isinstance(value, dict) else value
    return make_recipe(raw)


@pytest.fixture(scope="module", autouse=True)
def _small_networks() -> Iterator[None]:
    """What is tested here does not depend on the networks' size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", Preset(4, 1, 1))
        patch.setattr("facedistill.hallucination.adversaries.WIDTHS", (4, 8, 8))
        yield


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five real images of low resolution: of three sizes, in no identity's folder."""
    folder = tmp_path_factory.mktemp("low")
    rng = np.random.default_rng(0)
    for i, side in enumerate((5, 9, 16, 16, 6)):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The stages priors and pairs."""
    out = tmp_path_factory.mktemp("fhn")
    train(recipe(), out, "priors")
    train(recipe(teachers={"teacher": str(tiny.teacher)}), out, "pairs")
    return out


def test_what_a_stage_writes(trained: Path) -> None:
    for stage, losses in (("priors", {"landmark", "parsing"}), ("pairs", {"pixel", "feature", "landmark", "parsing"})):
        run = trained / stage
        rows = read_log(run / LOG)
        assert len(rows) == 3 and losses <= set(rows[0]) and all(row["gradient_norm"] > 0 for row in rows)
        assert (run / "sheets" / "0000.png").exists() and "no evidence" in (run / "report.html").read_text()
        result = json.loads((run / "measures.json").read_text())
        assert [row["pixels"] for row in result["rows"]] == [8, 12, 16, 20, 28, 32]
        assert result["measured"] == "held-out faces" and result["faces"] == 6
        assert set(result["rows"][0]) >= {"landmark_error", "parsing_accuracy"}
        verified = [json.loads(line) for line in (run / "verification.jsonl").read_text().splitlines()]
        assert len(verified) == 1 and verified[0]["16/parsing_accuracy"] > 0
    names = {"psnr", "ssim", "identity", "features"}
    assert names | {f"{name}_bicubic" for name in names} <= set(result["rows"][0])


def test_a_stage_begins_with_the_one_before(trained: Path, tmp_path: Path) -> None:
    prior, size = load_fhn(trained / "priors" / "fhn.safetensors")
    assert size == 32 and prior.preset == "tiny"
    shutil.copytree(trained / "priors", tmp_path / "priors")
    run = train(recipe(schedule={"lr": 0.0}), tmp_path, "pairs")
    after, _ = load_fhn(run / "fhn.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(prior.state_dict().values(), after.state_dict().values()))
    with pytest.raises(
        UsageError, match="preset tiny, 32 pixels, but the recipe has small, 32; use one of both in all st"
    ):
        train(recipe(hallucination={"preset": "small"}), trained, "adversarial")


def test_the_stage_of_priors_moves_nothing_else(trained: Path) -> None:
    torch.manual_seed(recipe().seed)
    fresh, after = create_fhn("tiny").state_dict(), load_fhn(trained / "priors" / "fhn.safetensors")[0].state_dict()
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, fresh[name])}
    assert changed == {"prior"}


def test_a_finished_stage_does_nothing(trained: Path, capsys: pytest.CaptureFixture) -> None:
    before = (trained / "priors" / "measures.json").stat().st_mtime_ns
    train(recipe(), trained, "priors")
    assert (trained / "priors" / "measures.json").stat().st_mtime_ns == before
    assert "is finished; nothing to do" in capsys.readouterr().err
    with pytest.raises(UsageError, match="holds a run of another recipe"):
        train(recipe(schedule={"epochs": 2}), trained, "priors")


@pytest.mark.parametrize("stage", ["priors", "pairs", "adversarial"])
def test_stopped_and_resumed_it_ends_with_the_same_bits(
    stage: str, trained: Path, low: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"low": str(low)} if stage == "adversarial" else {}
    made = recipe(schedule={"checkpoint_steps": 1}, hallucination=settings)
    monkeypatch.setattr(loop, "SHOWN", 2)
    for out in ("whole", "stopped"):
        for earlier in ["priors", "pairs"] if stage == "adversarial" else []:
            shutil.copytree(trained / earlier, tmp_path / out / earlier)
    whole = train(made, tmp_path / "whole", stage)
    calls = 0

    def stop(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("facedistill.run.Log.write", stop)
        with pytest.raises(KeyboardInterrupt):
            train(made, tmp_path / "stopped", stage)
    assert not (tmp_path / "stopped" / stage / "measures.json").exists()
    stopped = train(made, tmp_path / "stopped", stage)
    states = [latest_checkpoint(run) for run in (whole, stopped)]
    assert states[0] and states[1] and states[0]["step"] == states[1]["step"] == 3
    for name, tensor in states[0]["method"].items():
        assert torch.equal(tensor, states[1]["method"][name]), name
    assert (whole / "fhn.safetensors").read_bytes() == (stopped / "fhn.safetensors").read_bytes()
    figures = [json.loads((run / "measures.json").read_text())["rows"] for run in (whole, stopped)]
    assert figures[0] == figures[1]


def test_it_learns_eight_faces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Thirty steps on eight faces, of which nothing is drawn anew, lower every loss."""
    monkeypatch.setattr(loop, "SHOWN", 2)
    monkeypatch.setattr(loop, "_end_epoch", lambda *_: None)
    still = {"smallest": 8, "largest": 8, "blur": 0, "noise": 0, "jpeg": None}
    made = recipe(
        data={"train": "synthetic:identities=4,images=2,size=32,seed=1,priors=true", "hold_out": 0.0},
        schedule={"epochs": 15, "decay": "none", "lr": 5e-3},
        hallucination={"rotate": 0, "shift": 0, "degrade": still},
    )
    run = train(made, tmp_path, "pairs")
    rows = read_log(run / LOG)
    for name in ("pixel", "landmark", "parsing"):
        assert np.mean([row[name] for row in rows[-4:]]) < 0.9 * np.mean([row[name] for row in rows[:4]]), name
    assert json.loads((run / "measures.json").read_text())["measured"].startswith("training images: set data.hold_out")


def given(low: Path | None, features: Any = None, **settings: Any) -> Given:
    from facedistill.hallucination.images import LowImages

    made = recipe(hallucination=settings)
    assert made.hallucination
    images = LowImages(low, 32) if low else None
    return Given(made, made.hallucination, Path("run"), create_fhn("tiny"), None, features, images)


def test_the_losses_of_the_generators_written_out(low: Path, tiny: Tiny) -> None:
    """RESEARCH's formula with the cycle in place of the comparison of different people."""
    teacher = load_model(tiny.teacher).requires_grad_(False)
    stage = AdversarialStage(given(low, teacher, pixel=50.0, feature=2.0, adversarial=3.0))
    high, real_low = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    scales, wanted = torch.tensor([2, 0]), torch.tensor([1, 2])
    found = stage.generated(high, real_low, scales, wanted)
    fhn, degrade, judge = stage.fhn, stage.degrader, stage.clean_judge
    up, down = fhn.with_priors(real_low), degrade(high, wanted)
    back = fhn.with_priors(down)
    real, logits = stage.low_judge.with_scales(down)
    cls = -torch.log_softmax(logits, 1)[[0, 1], wanted].mean()
    adversarial = is_real(judge(up.coarse)) + is_real(judge(up.fine)) + is_real(real) + cls
    assert found["adversarial"].item() == pytest.approx(3 * adversarial.item(), rel=1e-5)
    assert found["pixel_clean"].item() == pytest.approx(50 * pixel_loss(back, high).item(), rel=1e-5)
    again = [(degrade(x, scales) - real_low).square().mean() for x in (up.coarse, up.fine)]
    assert found["pixel_low"].item() == pytest.approx(50 * sum(again).item(), rel=1e-5)
    maps = lambda x: teacher.outputs((x + 1) * 127.5).features  # noqa: E731
    features = feature_loss(maps(back.coarse), maps(high)) + feature_loss(maps(back.fine), maps(high))
    assert found["feature"].item() == pytest.approx(2 * features.item(), rel=1e-4)


def test_the_losses_of_the_discriminators_move_no_generator(low: Path) -> None:
    stage = AdversarialStage(given(low))
    high, real_low = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    scales, wanted = torch.tensor([2, 0]), torch.tensor([1, 2])
    found = stage.judged(high, real_low, scales, wanted)
    up, judge = stage.fhn.with_priors(real_low), stage.clean_judge
    expected = is_real(judge(high)) + is_fake(judge(up.coarse)) + is_fake(judge(up.fine))
    assert found["clean_discriminator"].item() == pytest.approx(expected.item(), rel=1e-5)
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None for network in (stage.fhn, stage.degrader) for p in network.parameters())
    assert all(p.grad is not None for p in stage.low_judge.parameters())


def test_the_prior_network_is_frozen_in_the_adversarial_stage(trained: Path, low: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "pairs", tmp_path / "pairs")
    run = train(recipe(hallucination={"low": str(low)}, schedule={"epochs": 2}), tmp_path, "adversarial")
    before, after = (load_fhn(r / "fhn.safetensors")[0] for r in (trained / "pairs", run))
    same = {
        part: all(torch.equal(a, b) for a, b in zip(x.state_dict().values(), y.state_dict().values()))
        for (part, x), (_, y) in zip(before.named_children(), after.named_children())
    }
    assert same == {"coarse": False, "prior": True, "encoder": False, "decoder": False}
    rows = read_log(run / LOG)
    assert "pixel_low" not in rows[0] and "pixel_low" in rows[1]  # the generators move at every second step
    assert all(torch.equal(p, q) for p, q in zip(network_of(tmp_path)[0].parameters(), after.parameters()))


def test_not_a_number_stops_and_keeps_the_last_checkpoint(
    trained: Path, low: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "pairs", tmp_path / "pairs")
    made = recipe(hallucination={"low": str(low)}, schedule={"checkpoint_steps": 1})
    step = AdversarialStage.generated

    def broken(self: Any, *batch: Any) -> Any:
        return {name: value * float("nan") for name, value in step(self, *batch).items()}

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialStage, "generated", broken)
        with pytest.raises(
            UserError, match=r"loss nan, gradient norm nan at step 1; stopped, the last good checkpoint is"
        ):
            train(made, tmp_path, "adversarial")
    state = latest_checkpoint(tmp_path / "adversarial")
    assert state and state["step"] == 1
    assert all(value.isfinite().all() for value in state["method"].values())
    assert (train(made, tmp_path, "adversarial") / "measures.json").exists()


def test_joint_training_is_a_run_of_the_composed_model(trained: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(trained / "pairs", tmp_path / "pairs")
    made = make_recipe(
        {
            "data": {"train": str(tiny.photos), "hold_out": 0.2},
            "student": {"start": str(tiny.student)},
            "teacher": str(tiny.teacher),
            "method": {"name": "proxylesskd", "terms": {"margin_softmax": {"scale": 16}}},
            "schedule": {"epochs": 1, "batch": 12, "lr": 0.01},
            "hallucination": {"size": 32},
            "check": {"own_class": 0},
        }
    )
    run = train(made, tmp_path, "joint")
    model = load_model(run)
    assert model.space == load_model(tiny.teacher).space
    inside, _ = network_of(run)
    assert isinstance(inside, FHN)
    before = load_fhn(tmp_path / "pairs" / "fhn.safetensors")[0]
    assert not torch.equal(next(inside.decoder.parameters()), next(before.decoder.parameters()))
    assert torch.equal(next(network_of(tmp_path)[0].parameters()), next(inside.parameters()))  # the latest stage
    assert "kind: degrade" in (run / "recipe.yaml").read_text()
    assert json.loads((run / "evaluation.json").read_text())["results"]


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("pears", {}, r"stage 'pears' \(did you mean 'pairs'\?\): expected one of priors, pairs, adversarial, joint"),
        ("pairs", {"hallucination": {"size": 40}}, "hallucination.size=40: expected a multiple of 16 from 32 up"),
        ("pairs", {"hallucination": {"preset": "tinny"}}, r"FHN 'tinny' \(did you mean 'tiny'\?\)"),
        ("pairs", {"schedule": {"optimizer": "sgd"}}, "these networks train by Adam, but schedule.optimizer=sgd; set"),
        (
            "pairs",
            {"schedule": {"precision": "bf16"}},
            "schedule.precision=bf16: these stages do not take it; leave it",
        ),
        (
            "priors",
            {"data": {"train": DATA.replace(",priors=true", "")}},
            "stage priors needs landmarks and parsing maps",
        ),
        (
            "pairs",
            {"teachers": {"feature": "x"}},
            r"feature \(did you mean 'features'\?\): expected the names teacher and",
        ),
        ("adversarial", {}, r"stage adversarial needs a finished .*pairs: train --stage pairs first"),
        ("joint", {}, "stage joint needs a trained recogniser: set student.start"),
        (
            "pairs",
            {"hallucination": {"degrade": {"shift": 0.1}}},
            "hallucination.degrade.shift: pairs lie pixel over pix",
        ),
        ("pairs", {"hallucination": {"degrade": {"smalest": 8}}}, r"no option 'smalest' \(did you mean 'smallest'\?\)"),
    ],
)
def test_what_cannot_be_trained(stage: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train(recipe(**changes), tmp_path, stage)


def test_folders_that_do_not_fit(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "pairs", tmp_path / "pairs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UsageError, match=r"stage adversarial needs real images of low resolution; set hallucination\.low"
    ):
        train(recipe(), tmp_path, "adversarial")
    for name, what in (("empty", "no images in it; expected files such as"), ("none", "no such folder")):
        with pytest.raises(UserError, match=f"hallucination.low .*{name}: {what}"):
            train(recipe(hallucination={"low": str(tmp_path / name)}), tmp_path, "adversarial")
    (tmp_path / "empty" / "x.jpg").write_bytes(b"\xff\xd8 no")
    with pytest.raises(UserError, match=r"x.jpg: cannot be read: .*; repair or remove it"):
        train(recipe(hallucination={"low": str(tmp_path / "empty")}), tmp_path, "adversarial")
    with pytest.raises(UserError, match=r"hallucination\.priors .*none: no such folder"):
        train(recipe(hallucination={"priors": str(tmp_path / "none")}), tmp_path / "other", "pairs")


def test_changed_low_images_stop_a_resume(
    trained: Path, low: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "pairs", tmp_path / "pairs")
    shutil.copytree(low, tmp_path / "low")
    made = recipe(hallucination={"low": str(tmp_path / "low")}, schedule={"checkpoint_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_end_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(made, tmp_path, "adversarial")
    (tmp_path / "low" / "0.png").unlink()
    with pytest.raises(UserError, match="low images: changed since this run began; restore it"):
        train(made, tmp_path, "adversarial")


def test_other_verbs_refuse_the_group(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="the recipe has the group 'hallucination': run `facedistill hallucinate train`"
    ):
        train_student(recipe(), tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"unknown key 'hallucination\.presett' \(did you mean 'preset'\?\); known here"
    ):
        recipe(hallucination={"presett": "tiny"})


def test_without_priors_or_features_the_pairs_still_train(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = train(recipe(data={"train": DATA.replace(",priors=true", "")}), tmp_path, "pairs")
    rows = read_log(run / LOG)
    assert "pixel" in rows[0] and not {"landmark", "feature"} & set(rows[0])
    told = " ".join(capsys.readouterr().err.split())
    assert "no priors are known of these images" in told and "teachers.features=MODEL" in told
    assert issubclass(PairStage, Stage)
