"""Random cells, and how likely a search finds given ones."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.architecture_search import log_likelihood, random_genotype, read_weights
from facedistill.architecture_search.space import weights_of
from facedistill.backbones import GENOTYPES, OPERATIONS, Supernet, genotype_from
from facedistill.errors import UserError


def test_random_cells_are_valid_and_of_a_seed() -> None:
    drawn = [random_genotype(seed) for seed in range(300)]
    assert all(genotype_from(cells.to_json()) == cells for cells in drawn)
    assert random_genotype(7) == drawn[7] and len(set(drawn)) == 300
    edges = [edge for cells in drawn for kind in (cells.normal, cells.reduce) for node in kind for edge in node]
    names = Counter(name for name, _ in edges)
    assert set(names) == set(OPERATIONS) and max(names.values()) < 1.3 * min(names.values())
    assert all(len({state for _, state in node}) == 2 for cells in drawn for node in cells.normal + cells.reduce)
    last = Counter(state for cells in drawn for _, state in cells.normal[3])
    assert set(last) == {0, 1, 2, 3, 4} and max(last.values()) < 1.5 * min(last.values())


def supernet() -> Supernet:
    torch.manual_seed(3)
    network = Supernet(8, 32, channels=2, cells=4)
    for kind in network.alphas:
        for rows in network.rows(kind):
            rows.data.normal_()
    return network


def test_the_log_likelihood_is_the_formula() -> None:
    network, cells = supernet(), GENOTYPES["pocketnet"]
    expected = 0.0
    for kind in ("normal", "reduce"):
        for node, rows in zip(getattr(cells, kind), network.rows(kind)):
            for name, state in node:
                alphas = rows[state].tolist()
                total = sum(math.exp(alpha) for alpha in alphas)
                expected += math.log(math.exp(alphas[OPERATIONS.index(name)]) / total)
    assert log_likelihood(cells, weights_of(network)) == pytest.approx(expected, abs=1e-3)


def test_a_search_finds_no_random_cells_likelier_than_its_own() -> None:
    network = supernet()
    weights = weights_of(network)
    own = log_likelihood(network.genotype(), weights)
    assert all(log_likelihood(random_genotype(seed), weights) < own for seed in range(50))


def test_a_weight_of_nothing_is_impossible() -> None:
    weights = weights_of(supernet())
    name, state = GENOTYPES["pocketnet"].normal[0][0]
    weights["normal"][0][state][OPERATIONS.index(name)] = 0.0
    assert log_likelihood(GENOTYPES["pocketnet"], weights) == -math.inf


def test_weights_survive_their_file(tmp_path: Path) -> None:
    file, weights = tmp_path / "weights.json", weights_of(supernet())
    file.write_text(json.dumps(weights))
    assert read_weights(file) == weights


def one_edge_less(weights: Any) -> Any:
    weights["reduce"][3].pop()
    return weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"weights\.json: .*; expected the weights\.json of a finished search"),
        ('{"normal": 3}', r"weights\.json: .*; expected the weights\.json"),
        ("{}", r"not the edges of two cells; expected the weights\.json"),
        (json.dumps(one_edge_less(weights_of(supernet()))), "not the edges of two cells"),
    ],
)
def test_what_are_no_weights(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "weights.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_weights(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.json: .*No such file.*; expected the weights\.json"):
        read_weights(tmp_path / "weights.json")
