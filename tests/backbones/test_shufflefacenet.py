"""ShuffleFaceNet: the paper's rounded sizes."""

import pytest

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError


@pytest.mark.parametrize(
    ("width", "parameters", "macs", "published_mflops"),
    [(0.5, 528_288, 33.5, 66.9), (1.5, 2_670_176, 288.8, 577.5), (2.0, None, 526, 1050)],
)
def test_sizes(width: float, parameters: int | None, macs: float, published_mflops: float) -> None:
    """The paper: 0.5 M, 2.6 M and 4.5 M parameters at 128-d; its FLOPs count a multiply-add twice."""
    network = create_backbone("shufflefacenet", 128, width=width)
    if parameters:
        assert count_parameters(network) == parameters
    else:
        assert 4.5e6 < count_parameters(network) < 4.6e6
    found = count_macs(network, 112) / 1e6
    assert found == pytest.approx(macs, rel=2e-3) and 2 * found == pytest.approx(published_mflops, rel=3e-3)


def test_only_the_published_widths() -> None:
    with pytest.raises(UsageError, match=r"width 0.75: expected one of 0.5, 1.0, 1.5, 2.0"):
        create_backbone("shufflefacenet", width=0.75)
