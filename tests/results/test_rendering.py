"""The Markdown of the terminal against the numbers of the JSON."""

import re
from pathlib import Path

import pytest

from evaluation_toys import PEOPLE, PHOTOS, model, write_bin, write_folder
from facedistill.evaluation import evaluate
from facedistill.results import render_comparison, render_table
from facedistill.results.reading import power
from facedistill.results.rendering import markdown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "faces")


def rows_of(text: str, heads: tuple[str, ...]) -> list[list[str]]:
    """The cells of all table rows that begin with these."""
    lines = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines() if "|" in line]
    return [line for line in lines if tuple(line[: len(heads)]) == heads]


def test_the_table_shows_the_numbers_of_the_json(folder: Path) -> None:
    models = {"student": model(1, noise=0.7, space="s"), "teacher": model(2, noise=0.1, space="s")}
    result = evaluate(models, [write_bin(folder.parent / "lfw.bin", names=True), folder], resamples=20)
    text = render_table(result)
    for r in result["results"]:
        block = text.split(f"{r['set']}, {r['protocol']} (")[1]
        line = rows_of(block, (f"{r['probe']} → {r['gallery']}",))[0]
        cells = " | ".join(line)
        assert f"{100 * r['eer']:.2f}" in cells
        enough = 40 if "directions" in r["settings"] else 20  # pooled, each pair of images counts twice
        for entry in r["tar_at_far"].values():
            star = "*" if entry["impostors"] < enough else ""
            assert f"{100 * entry['value']:.2f}{star} [{100 * entry['ci95'][0]:.2f}" in cells
        if "accuracy" in r:
            assert f"{100 * r['accuracy']:.2f} [" in cells
    assert "fewer than 20 impostor pairs" in text
    assert f"{PEOPLE * PHOTOS} images, {24 * 47:,} pairs, {PEOPLE * 6} of them genuine" in text
    far, tar = (result["results"][7]["at_gallery_threshold"]["1e-2"][key] for key in ("far", "tar"))
    assert f"{100 * tar:.2f} FAR {power(far)}" in text


def test_the_table_shows_differences_and_compatibility(folder: Path) -> None:
    models = {"student": model(1, noise=0.7), "baseline": model(3, dim=2), "teacher": model(2, noise=0.1)}
    result = evaluate(models, [folder], resamples=20)
    text = render_table(result)
    d = next(d for d in result["differences"] if d["a"] == ["student", "student"] and d["b"] == ["teacher", "teacher"])
    far = d["of"]["tar_at_far.1e-2"]
    (line,) = rows_of(text, ("student → student", "teacher → teacher"))
    assert any(cell.startswith(f"{100 * far['value']:+.2f}".replace("-", "−")) for cell in line)
    assert ("not distinguishable" in " ".join(line)) == any(not of["distinguishable"] for of in d["of"].values())
    (c,) = result["compatibility"]
    after = text.split("Backward compatibility")[1]
    assert ("compatible" in after) == any("compatible" in of for of in c["of"].values())


def test_groups_have_a_table(folder: Path) -> None:
    sets = {f"rfw/{name}": write_bin(folder.parent / f"{name}.bin", names=True) for name in ("African", "Asian")}
    result = evaluate({"m": model(1, noise=0.7)}, sets, resamples=0)
    (group,) = result["groups"]
    line = rows_of(render_table(result).split("rfw, pairs")[1], ("m → m",))[0]
    assert line[1:4] == [f"{100 * value:.2f}" for value in (*group["sets"].values(), group["mean"])]


def test_several_runs_stand_side_by_side(folder: Path) -> None:
    runs = {name: evaluate({"m": model(seed, noise=0.5)}, [folder], resamples=0) for name, seed in (("a", 1), ("b", 2))}
    text = render_comparison(runs)
    assert text.count("faces, all-pairs") == 1
    for name, run in runs.items():
        (line,) = rows_of(text.split("Results")[1], (name, "m → m"))
        assert f"{100 * run['results'][0]['eer']:.2f}" in line


def test_the_table_leaves_out_what_is_absent(folder: Path) -> None:
    text = render_table(evaluate({"m": model()}, [folder], resamples=0))
    assert "accuracy" not in text
    assert "cosine" not in text
    assert not re.search(r"\[[0-9]", text)


def test_empty_columns_and_tables_vanish() -> None:
    assert markdown(["a", "b"], [["1", ""], ["22", ""]]) == "| a  |\n| -- |\n| 1  |\n| 22 |\n"
    assert markdown(["a"], []) == ""


def test_a_name_stays_in_its_cell() -> None:
    text = markdown(["run", "value"], [["a|b\x1b\nc", "1"], ["d", "2"]])
    assert text.splitlines()[2] == r"| a\|b\x1b\nc | 1     |" and text.count("\n") == 4
