"""EdgeFace: published sizes, and the embeddings of its authors' code (which is timm's EdgeNeXt)."""

import pytest
import torch

from facedistill.backbones import count_parameters, create_backbone
from facedistill.errors import UsageError
from fixed_weights import fix_weights, unit_embedding


@pytest.mark.parametrize(
    ("name", "parameters"), [("edgeface_xxs", 1_244_744), ("edgeface_xs", 1_770_492), ("edgeface_s", 3_652_520)]
)
def test_published_parameters(name: str, parameters: int) -> None:
    assert count_parameters(create_backbone(name)) == parameters


# Made by the code of otroshi/edgeface (cfcae62) and timm 1.0.31 with the weights and the image of fixed_weights.py.
THEIRS = [
    ("edgeface_xxs", [0.0150803078, -0.0244985678, -0.0529998386, -0.0576641488], 0.08220525867510242),
    ("edgeface_xs", [0.0711283774, 0.0149872297, -0.0483920905, -0.0096405231], 0.012594545252461783),
    ("edgeface_s", [-0.0457658885, -0.0403839273, -0.0318652605, -0.0210191976], -0.04647200577855523),
]


@pytest.mark.parametrize(("name", "first", "total"), THEIRS)
def test_the_embedding_is_that_of_the_authors_code(
    name: str, first: list[float], total: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the last layers are kept in fp32 otherwise
    network = create_backbone(name)
    fix_weights(network, sort=True)
    embedding = unit_embedding(network)
    torch.testing.assert_close(embedding[:4], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-9)
    assert embedding[::7].sum().item() == pytest.approx(total, abs=1e-9)


def test_full_rank_and_wrong_ranks() -> None:
    assert count_parameters(create_backbone("edgeface_xs", rank=None)) == 2_242_620  # timm's edgenext_x_small
    with pytest.raises(UsageError, match=r"rank 1.5: expected a share above 0, up to 1"):
        create_backbone("edgeface_xs", rank=1.5)
    with pytest.raises(UsageError, match=r"input_size 50: expected a multiple of 4"):
        create_backbone("edgeface_xs", input_size=50)
