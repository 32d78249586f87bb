"""EdgeFace: EdgeNeXt, a convolutional network with attention over channels, whose linear layers have low rank.

George et al., "EdgeFace" (arXiv 2307.01838), on EdgeNeXt (2206.10589), as in the authors' code: at 512-d and 112x112,
xxs 1,244,744 parameters and 46.8 M MACs, XS 1,770,492 and 76.1 M, S 3,652,520 and 151.9 M. Small in parameters and
MACs, but slow on phones: attention, LayerNorm and GELU have no fast kernels there. Parameters keep the names of the
authors' files.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones.base import Backbone, outputs_of
from facedistill.errors import UsageError

KERNELS = (3, 5, 7, 9)
ATTENTIVE = (0, 1, 1, 1)  # blocks at a stage's end that attend
SCALES = (2, 2, 3, 4)
POSITIONS = (False, True, False, False)  # stages whose attention sees positions
EXPANSION = 4
EPS = 1e-6


def linear(inputs: int, outputs: int, rank: float | None) -> nn.Module:
    """Return a linear layer; with `rank`, of rank `rank * min(inputs, outputs)`, as two matrices."""
    if rank is None:
        return nn.Linear(inputs, outputs)
    return LowRank(inputs, outputs, max(2, int(min(inputs, outputs) * rank)))


class LowRank(nn.Module):
    """x (..., inputs) -> (..., outputs) through `rank` values."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, rank, bias=False)
        self.linear2 = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Two linear layers over the last dimension, GELU between them."""

    def __init__(self, dim: int, rank: float | None) -> None:
        super().__init__()
        self.fc1 = linear(dim, EXPANSION * dim, rank)
        self.fc2 = linear(EXPANSION * dim, dim, rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    """Depthwise convolution, LayerNorm, Mlp, a trained scale, and a residual: (B, C, H, W) -> the same."""

    def __init__(self, dim: int, kernel: int, rank: float | None) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, rank)
        self.gamma = nn.Parameter(torch.full((dim,), EPS))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.gamma * self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return x + inner.permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Attention between channels instead of places (cross-covariance, arXiv 2106.09681): (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, rank: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = linear(dim, 3 * dim, rank)
        self.proj = linear(dim, dim, rank)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 4, 1)  # each (B, heads, C / heads, N)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3) * self.temperature).softmax(-1)
        return self.proj((weights @ v).flatten(1, 2).transpose(1, 2))


class Positions(nn.Module):
    """Sines and cosines of the place in the map, projected to the channels: (1, dim, H, W)."""

    HIDDEN, TEMPERATURE = 32, 10000

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * self.HIDDEN, dim, 1)

    def forward(self, height: int, width: int) -> Tensor:
        weight = self.token_projection.weight
        index = torch.arange(self.HIDDEN, device=weight.device)
        period = self.TEMPERATURE ** (2 * (index // 2) / self.HIDDEN)

        def waves(size: int) -> Tensor:
            places = torch.arange(1, size + 1, device=weight.device) / (size + EPS) * 2 * math.pi
            angle = places[:, None] / period
            return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1).T  # (HIDDEN, size)

        rows = waves(height)[:, :, None].expand(-1, -1, width)
        columns = waves(width)[:, None, :].expand(-1, height, -1)
        return self.token_projection(torch.cat([rows, columns])[None].to(weight.dtype))


class AttentionBlock(nn.Module):
    """Depthwise convolutions over parts of the channels, each adding the one before; channel attention; Mlp."""

    def __init__(self, dim: int, scales: int, heads: int, positions: bool, rank: float | None) -> None:
        super().__init__()
        width = math.ceil(dim / scales)
        self.parts = scales
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(max(1, scales - 1))
        )
        self.pos_embd = Positions(dim) if positions else None
        self.norm_xca = nn.LayerNorm(dim, EPS)
        self.gamma_xca = nn.Parameter(torch.full((dim,), EPS))
        self.xca = ChannelAttention(dim, heads, rank)
        self.norm = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, rank)
        self.gamma = nn.Parameter(torch.full((dim,), EPS))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        parts = x.chunk(len(self.convs) + 1, 1)
        done: list[Tensor] = []
        for conv, part in zip(self.convs, parts):
            done.append(conv(part + done[-1] if done else part))
        x = torch.cat([*done, parts[-1]], 1)
        if self.pos_embd is not None:
            x = x + self.pos_embd(*x.shape[2:])
        size = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.gamma_xca * self.xca(self.norm_xca(tokens))
        tokens = self.gamma * self.mlp(self.norm(tokens))
        return shortcut + tokens.transpose(1, 2).unflatten(2, size)


class Stage(nn.Module):
    """A strided convolution (but in the first stage), and blocks of which the last may attend."""

    def __init__(self, number: int, inputs: int, dim: int, depth: int, heads: int, rank: float | None) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if number:
            self.downsample = nn.Sequential(ChannelNorm(inputs, EPS), nn.Conv2d(inputs, dim, 2, 2))
        plain = depth - ATTENTIVE[number]
        blocks: list[nn.Module] = [ConvBlock(dim, KERNELS[number], rank) for _ in range(plain)]
        blocks += [
            AttentionBlock(dim, SCALES[number], heads, POSITIONS[number], rank) for _ in range(ATTENTIVE[number])
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Head(nn.Module):
    """Mean over places, LayerNorm, linear layer; in fp32, because margins need exact cosines."""

    def __init__(self, dim: int, embedding_dim: int, rank: float | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPS)
        self.fc = linear(dim, embedding_dim, rank)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.fc(self.norm(x.float().mean((2, 3))))


class EdgeFace(Backbone):
    """Patches of 4x4, four stages, the mean over places, a linear layer.

    Args:
        dims, depths: channels and blocks of each stage. heads: of the attention.
        rank: of the linear layers, as a share of their smaller side; None for full rank.

    `with_features` returns four maps, at 1/4, 1/8, 1/16 and 1/32 of the input.
    """

    def __init__(
        self,
        dims: tuple[int, int, int, int],
        depths: tuple[int, int, int, int],
        heads: int,
        embedding_dim: int = 512,
        input_size: int = 112,
        rank: float | None = None,
    ) -> None:
        super().__init__(embedding_dim, input_size)
        if input_size < 32 or input_size % 4:
            raise UsageError(f"input_size {input_size}: expected a multiple of 4 from 32 up, e.g. 64 or 112")
        if rank is not None and not 0 < rank <= 1:
            raise UsageError(f"rank {rank}: expected a share above 0, up to 1, or none for full rank")
        self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), ChannelNorm(dims[0], EPS))
        inputs = (dims[0], *dims)
        self.stages = nn.ModuleList(Stage(i, inputs[i], dims[i], depths[i], heads, rank) for i in range(len(dims)))
        self.head = Head(dims[-1], embedding_dim, rank)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of(self.stages, self.stem(x))
        return self.head(maps[-1]), tuple(maps)


edgeface_xxs = partial(EdgeFace, (24, 48, 88, 168), (2, 2, 6, 2), 4)
edgeface_xs = partial(EdgeFace, (32, 64, 100, 192), (3, 3, 9, 3), 4, rank=0.6)
edgeface_s = partial(EdgeFace, (48, 96, 160, 304), (3, 3, 9, 3), 8, rank=0.5)
