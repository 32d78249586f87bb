"""The supernet: published size, and that its weights choose what its genotype says."""

import pytest
import torch

from facedistill.backbones import Supernet, count_parameters, create_backbone
from facedistill.backbones.genotype import OPERATIONS
from facedistill.backbones.supernet import MixedOperation
from facedistill.errors import UsageError


def first_edge(network: Supernet) -> MixedOperation:
    return next(module for module in network.modules() if isinstance(module, MixedOperation))


def test_published_parameters() -> None:
    """RESEARCH of the authors' code: 2,792,528 without the classifier."""
    network = Supernet()
    alphas = sum(p.numel() for p in network.alphas.parameters())
    assert alphas == 224 and count_parameters(network) - alphas == 2_792_528


def test_with_all_weight_on_one_operation_each_edge_is_that_operation() -> None:
    torch.manual_seed(0)
    network = Supernet(8, 32, channels=4, cells=4).double().eval()
    edge = first_edge(network)
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    for i, layer in enumerate(edge.operations):
        weights = torch.zeros(len(OPERATIONS) + 1, dtype=torch.float64)
        weights[i] = 1
        torch.testing.assert_close(edge(x, weights, 0.0), layer(x))
    none = torch.zeros(len(OPERATIONS) + 1, dtype=torch.float64)
    none[-1] = 1
    assert edge(x, none, 0.0).abs().max() == 0


def test_the_genotype_is_the_strongest_two_edges_of_each_node_without_none() -> None:
    network = Supernet(8, 32, channels=4, cells=4)
    with torch.no_grad():
        for kind in ("normal", "reduce"):
            for rows in network.rows(kind):
                rows.zero_()
                rows[:, -1] = 5  # "none" never counts
        last = list(network.rows("normal"))[3]  # of the last node: five edges
        last[4, OPERATIONS.index("dw_conv_5x5")] = 9
        last[1, OPERATIONS.index("max_pool_3x3")] = 7
    assert network.genotype().normal[3] == (("max_pool_3x3", 1), ("dw_conv_5x5", 4))
    trained = create_backbone("genotype", 8, 32, cells=network.genotype().to_json(), channels=8, depth=4)
    assert trained.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 8)


def test_an_auxiliary_skip_adds_beta_times_its_input() -> None:
    network = Supernet(8, 32, channels=4, cells=4, auxiliary=True).eval()
    edge = first_edge(network)
    x, weights = torch.randn(1, 4, 16, 16), torch.zeros(len(OPERATIONS) + 1)
    torch.testing.assert_close(edge(x, weights, 0.25), 0.25 * x)


def test_every_alpha_gets_a_gradient() -> None:
    network = Supernet(8, 32, channels=4, cells=4)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    alphas = [rows.grad for kind in ("normal", "reduce") for rows in network.rows(kind)]
    assert all(g is not None and g.abs().sum(1).min() > 0 for g in alphas)


def test_too_few_cells_or_odd_channels() -> None:
    with pytest.raises(UsageError, match="a supernet of 2 cells, 4 channels: expected 4 cells or more"):
        Supernet(8, 32, channels=4, cells=2)
