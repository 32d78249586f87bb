"""The plain vision transformer of face recognition, with the parameter names of arcface_torch.

Dosovitskiy et al. (arXiv 2010.11929), as in insightface's arcface_torch: patches of 9x9, no class token, ReLU6, and all
tokens side by side before the last layers. At 512-d and 112x112, T has 256 channels, S 512.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones.base import Backbone, output_norm
from facedistill.errors import UsageError
from facedistill.recipe import Share

PATCH, DEPTH, HEADS, EXPANSION = 9, 12, 8, 4
MAPS = (3, 6, 9, 12)  # blocks after which `with_features` takes a map


class Attention(nn.Module):
    """Self-attention between tokens: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers, ReLU6 between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, EXPANSION * dim)
        self.fc2 = nn.Linear(EXPANSION * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu6(self.fc1(x)))


class Block(nn.Module):
    """Attention and Mlp, each behind a LayerNorm and with a residual, which in training is at times left out.

    Args:
        drop: the share of samples of which a residual branch is left out (stochastic depth, arXiv 1603.09382).
    """

    def __init__(self, dim: int, drop: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim), Mlp(dim)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._keep(self.attn(self.norm1(x)))
        return x + self._keep(self.mlp(self.norm2(x)))

    def _keep(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * (kept / (1 - self.drop)).to(branch.dtype)


class PatchEmbed(nn.Module):
    """(B, 3, H, W) -> tokens (B, N, C), one for each patch; a rest at the right and lower edge is left out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(Backbone):
    """Patches, twelve blocks, and two linear layers with normalisation over all tokens.

    Args:
        dim: channels of a token.
        drop_path: the share of left-out residual branches in the last block; it grows linearly from 0.
        output: what follows the last normalisation, see `OutputBlock`.

    `with_features` returns the tokens after blocks 3, 6, 9 and 12 as maps (B, C, h, w), all of one size.
    """

    def __init__(
        self,
        dim: int,
        embedding_dim: int = 512,
        input_size: int = 112,
        drop_path: Share = 0.1,
        output: str = "affine",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        self.side = input_size // PATCH
        if input_size < 32:
            raise UsageError(f"input_size {input_size}: expected 32 or more, e.g. 64 or 112")
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, dim))
        self.blocks = nn.ModuleList(Block(dim, drop_path * i / (DEPTH - 1)) for i in range(DEPTH))
        self.norm = nn.LayerNorm(dim)
        self.feature = nn.Sequential(
            nn.Linear(dim * self.side**2, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, embedding_dim, bias=False),
            output_norm(embedding_dim, output, 2e-5),
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.patch_embed(x) + self.pos_embed
        maps = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in MAPS:
                maps.append(x.transpose(1, 2).unflatten(2, (self.side, self.side)))
        with torch.autocast(x.device.type, enabled=False):
            return self.feature(self.norm(x.float()).flatten(1)), tuple(maps)


vit_t, vit_s = (partial(VisionTransformer, dim) for dim in (256, 512))
