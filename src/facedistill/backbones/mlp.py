"""A multilayer perceptron for vectors of features: of speech, of text, or another network's embeddings."""

import itertools

from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, init_kaiming
from facedistill.errors import UsageError


class Mlp(Backbone):
    """Each feature normalised, then `depth` times (linear, BN, ReLU), then the output block.

    It takes float32 (B, input_size). The normalisation (BN without scale and bias) makes it independent of the
    features' units.

    Args:
        hidden: the width of the layers between. depth: their number. output: see `OutputBlock`.
    """

    has_features = False
    takes_features = True

    def __init__(
        self, embedding_dim: int = 128, input_size: int = 112, hidden: int = 256, depth: int = 2, output: str = "bias"
    ) -> None:
        super().__init__(embedding_dim, input_size)
        if input_size < 1 or hidden < 1 or depth < 0:
            raise UsageError(f"{input_size} features, hidden={hidden}, depth={depth}: expected 1, 1 and 0 or more")
        self.norm = nn.BatchNorm1d(input_size, affine=False)
        widths = [input_size, *[hidden] * depth]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())
                for inputs, outputs in itertools.pairwise(widths)
            )
        )
        self.output = OutputBlock(widths[-1], embedding_dim, output)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(self.norm(x)))
