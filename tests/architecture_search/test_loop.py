"""A search of a minute's length: it ends with cells that train, and resumes to the same bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facedistill.architecture_search import log_likelihood, loop, read_weights, search_and_train
from facedistill.architecture_search.halves import Part, halves
from facedistill.architecture_search.loop import search
from facedistill.backbones import Supernet, read_genotype
from facedistill.data import make_sampler
from facedistill.errors import UsageError, UserError
from facedistill.recipe import make_recipe
from facedistill.run import LOG, latest_checkpoint, read_log
from facedistill.training import train
from tiny_world import Tiny


def recipe(tiny: Tiny, **changes: Any) -> Any:
    raw = {
        "data": str(tiny.photos),
        "student": {"input_size": 32, "embedding_dim": 8},
        "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
        "schedule": {"epochs": 1, "batch": 12, "lr": 0.05, "log_steps": 1},
        "search": {"channels": 2, "cells": 4, "order": 1},
    }
    return make_recipe(raw | changes)


@pytest.mark.parametrize("method", ["scratch", "proxylesskd"])
def test_a_search_of_second_order_with_all_that_it_offers(tiny: Tiny, tmp_path: Path, method: str) -> None:
    objective: dict[str, Any] = {"method": {"name": method, "terms": {"margin_softmax": {"scale": 16}}}}
    if method == "proxylesskd":
        objective |= {"teacher": str(tiny.teacher), "check": {"own_class": 0}}
        objective |= {"student": {"input_size": 32}}
    settings = {"channels": 2, "cells": 4, "order": 2, "latency": 0.1, "auxiliary": True}
    out = search(recipe(tiny, search=settings, **objective), tmp_path / "run")
    cells = read_genotype(str(out / "genotype.json"))
    assert -16 * 2.3 < log_likelihood(cells, read_weights(out / "weights.json")) < 0  # near even: 16 ln 8 = 33.3
    rows = read_log(out / LOG)
    assert {"margin_softmax", "validation", "latency"} <= set(rows[0]) and 0.5 < rows[0]["latency"] < 2
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2 and all(name in page for name, _ in cells.normal[0])
    before = (out / "report.html").stat().st_mtime_ns
    search(recipe(tiny, search=settings, **objective), out)  # finished: does nothing
    assert (out / "report.html").stat().st_mtime_ns == before


def test_search_and_train(tiny: Tiny, tmp_path: Path) -> None:
    student = {"input_size": 32, "embedding_dim": 8, "options": {"channels": 8, "depth": 4}}
    run = search_and_train(recipe(tiny, student=student), tmp_path / "run")
    cells = json.loads((tmp_path / "run" / "genotype.json").read_text())
    config = json.loads((run / "model" / "config.json").read_text())
    assert (config["options"]["cells"], config["options"]["channels"]) == (cells, 8) and run == tmp_path / "run/student"
    search(recipe(tiny, student=student), tmp_path / "run")  # the same search: does nothing


def test_options_of_the_trained_network_are_looked_at_first(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="widths"):
        search_and_train(recipe(tiny, student={"options": {"widths": 2}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_cells_train(tiny: Tiny, tmp_path: Path) -> None:
    out = search(recipe(tiny), tmp_path / "run")
    options = {"file": str(out / "genotype.json"), "channels": 8, "depth": 4}
    student = {"backbone": "genotype", "options": options, "input_size": 32, "embedding_dim": 8}
    run = train(recipe(tiny, student=student, search=None), tmp_path / "trained")
    (out / "genotype.json").unlink()
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["options"]["file"] is None and len(config["options"]["cells"]["normal"]) == 4


def test_stopped_and_resumed_it_ends_with_the_same_bits(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = {"epochs": 2, "batch": 18, "lr": 0.05, "log_steps": 1, "checkpoint_steps": 1}
    settings = {"channels": 2, "cells": 4, "order": 1}
    whole = search(recipe(tiny, schedule=schedule, search=settings), tmp_path / "whole")
    calls = 0

    def stop(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("facedistill.run.Log.write", stop)
        with pytest.raises(KeyboardInterrupt):
            search(recipe(tiny, schedule=schedule, search=settings), tmp_path / "stopped")
    stopped = search(recipe(tiny, schedule=schedule, search=settings), tmp_path / "stopped")
    states = [latest_checkpoint(run) for run in (whole, stopped)]
    assert states[0] and states[1] and states[0]["step"] == states[1]["step"]
    for name, tensor in states[0]["method"].items():
        assert torch.equal(tensor, states[1]["method"][name]), name
    assert (whole / "genotype.json").read_bytes() == (stopped / "genotype.json").read_bytes()


def test_the_weights_step_leaves_the_alphas_alone(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published code adds the training loss's gradient to the architecture's."""
    seen = []
    step = loop._move_weights

    def watched(recipe: Any, run: Path, method: Any, *rest: Any) -> Any:
        alphas = [p for n, p in method.named_parameters() if ".alphas." in n]
        before = [p.detach().clone() for p in alphas], [p.grad.clone() for p in alphas]
        losses = step(recipe, run, method, *rest)
        seen.append(all(torch.equal(p, b) and torch.equal(p.grad, g) for p, b, g in zip(alphas, *before)))
        return losses

    monkeypatch.setattr(loop, "_move_weights", watched)
    search(recipe(tiny), tmp_path / "run")
    assert seen and all(seen)


def test_each_half_has_half_of_every_class_and_samplers_stay_inside() -> None:
    labels = np.repeat(np.arange(5), [4, 5, 2, 1, 8])
    first, second = halves(labels, 0)
    assert sorted([*first, *second]) == list(range(20)) and not set(first) & set(second)
    assert np.bincount(labels[first], minlength=5).tolist() == [2, 3, 1, 1, 4]
    part = Part(make_sampler("uniform", labels[second], 4, 0), second)
    indices, flips = part.epoch(0)
    assert indices.shape == flips.shape == (2, 4) and set(indices.flatten()) <= set(second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schedule": {"optimizer": "adamw", "batch": 12}, "search": {"order": 2}},
            "one step of SGD ahead, but schedule",
        ),
        ({"method": "adadistill"}, "search: method adadistill moves W at every pass"),
        ({"search": {"cells": 3}}, "a supernet of 3 cells, 16 channels: expected 4 cells or more"),
    ],
)
def test_what_a_search_cannot_do(tiny: Tiny, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search(recipe(tiny, **changes), tmp_path / "run")


def test_a_mistyped_key_gets_a_suggestion(tiny: Tiny) -> None:
    with pytest.raises(
        UsageError, match=r"unknown key 'search\.ordr' \(did you mean 'order'\?\); known here: channels"
    ):
        recipe(tiny, search={"ordr": 1})


def test_train_refuses_a_search(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the recipe has the group 'search': run `facedistill search`"):
        train(recipe(tiny), tmp_path / "run")


def test_one_identity_is_too_few() -> None:
    with pytest.raises(UserError, match="6 images of 1 people: a search needs at least two people"):
        halves(np.zeros(6, dtype=np.int64), 0)
    with pytest.raises(UserError, match="at least two people with two or more images each"):
        halves(np.arange(6), 0)


@pytest.mark.parametrize("content", ["{", '{"normal": 3}', '{"normal": [[[-1]]]}'])
def test_a_damaged_table_of_times_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / loop.TIMES).write_text(content)
    with pytest.raises(UserError, match=r"latency\.json: damaged .*; start a new search with another --out"):
        loop._times(tmp_path, Supernet(8, 32, channels=2, cells=4))


def test_the_log_holds_the_gradients_norm(tiny: Tiny, tmp_path: Path) -> None:
    out = search(recipe(tiny), tmp_path / "run")
    assert all(row["gradient_norm"] > 0 for row in read_log(out / LOG))
