"""The vision transformer: arcface_torch's sizes and names, and its blocks by PyTorch's own transformer layer."""

import pytest
import torch
from torch import nn

from facedistill.backbones import count_parameters, create_backbone
from facedistill.backbones.vit import Block
from facedistill.errors import UsageError

MASK_TOKEN = {"vit_t": 256, "vit_s": 512}  # only arcface_torch's training uses it


@pytest.mark.parametrize(("name", "parameters"), [("vit_t", 19_137_792), ("vit_s", 76_023_296)])
def test_parameters_are_arcface_torchs_without_the_mask_token(name: str, parameters: int) -> None:
    assert count_parameters(create_backbone(name)) == parameters - MASK_TOKEN[name]


def test_a_block_is_a_transformer_layer() -> None:
    torch.manual_seed(0)
    block = Block(64, 0.0).eval()
    layer = nn.TransformerEncoderLayer(
        64, 8, 256, dropout=0, activation=nn.functional.relu6, batch_first=True, norm_first=True
    ).eval()
    ours = dict(block.named_parameters())
    theirs = {
        "self_attn.in_proj_weight": ours["attn.qkv.weight"],
        "self_attn.in_proj_bias": torch.zeros(3 * 64),
        "self_attn.out_proj.weight": ours["attn.proj.weight"],
        "self_attn.out_proj.bias": ours["attn.proj.bias"],
        **{f"linear{i}.{k}": ours[f"mlp.fc{i}.{k}"] for i in (1, 2) for k in ("weight", "bias")},
        **{f"norm{i}.{k}": ours[f"norm{i}.{k}"] for i in (1, 2) for k in ("weight", "bias")},
    }
    layer.load_state_dict(theirs)
    x = torch.randn(2, 9, 64)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-4, atol=1e-5)


def test_a_left_out_branch_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = Block(16, 0.5).train()
    branch = torch.ones(20_000, 1, 1)
    kept = block._keep(branch)
    assert set(kept.unique().tolist()) == {0.0, 2.0} and kept.mean().item() == pytest.approx(1, abs=0.03)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(UsageError, match="input_size 16: expected 32 or more"):
        create_backbone("vit_t", input_size=16)
