"""Any network of timm (PyTorch Image Models) as a backbone, where timm is installed: `timm:NAME`.

timm imports torchvision, whose wheel on PyPI belongs to one CUDA build of torch: installed beside another torch, it
fails at import, and pip may replace the torch that is there. Take both from PyTorch's own index, for the same platform.
"""

from typing import Any

from torch import Tensor

from facedistill.backbones.base import Backbone
from facedistill.errors import UsageError, UserError, closest

PREFIX = "timm:"


class TimmNetwork(Backbone):
    """A network of timm, untrained, with a linear layer to the embedding instead of its classifier.

    Args:
        name: in timm's list, e.g. "mobilenetv4_conv_small".

    `with_features` returns the maps of timm's `forward_intermediates`, if the network has it.

    Raises:
        UsageError: a name that timm does not have, or a size that the network refuses.
        UserError: timm cannot be imported.
    """

    def __init__(self, name: str, embedding_dim: int, input_size: int) -> None:
        super().__init__(embedding_dim, input_size)
        timm = import_timm()
        if name not in timm.list_models():
            raise UsageError(f"timm has no network '{name}'{closest(name, timm.list_models())}")
        try:
            try:
                self.network = timm.create_model(name, num_classes=embedding_dim, img_size=input_size)
            except TypeError:  # only networks with positions take a size
                self.network = timm.create_model(name, num_classes=embedding_dim)
        except (ValueError, AssertionError) as error:
            raise UsageError(f"timm:{name} at {input_size} pixels: {error}") from error
        self.has_features = hasattr(self.network, "forward_intermediates")

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).float()

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not self.has_features:
            raise UsageError(f"{type(self.network).__name__} of timm has no stage maps; use a term that needs none")
        last, maps = self.network.forward_intermediates(x)
        return self.network.forward_head(last).float(), tuple(maps)


def import_timm() -> Any:
    """Return the module timm. Raises UserError, with the reason, if it cannot be imported."""
    try:
        import timm
    except Exception as error:  # a torchvision of another build raises RuntimeError
        raise UserError(
            f"timm cannot be imported ({error}). Install timm with a torchvision of the same build as torch, both from "
            "https://download.pytorch.org/whl: the one on PyPI needs a CUDA torch"
        ) from error
    return timm
