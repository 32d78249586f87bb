"""The networks, by name, and their cost.

To add one to the package: write a file with a `Backbone`, and add its row to BACKBONES: the class, or a function that
makes it from embedding_dim, input_size and options. One outside the package is named `package.module:Class`.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from facedistill.backbones.base import Backbone, sample_shape
from facedistill.backbones.cells import operation
from facedistill.backbones.costs import COSTS
from facedistill.backbones.edgeface import edgeface_s, edgeface_xs, edgeface_xxs
from facedistill.backbones.genotype import (
    EDGES,
    GENOTYPES,
    INPUTS,
    KINDS,
    NODES,
    OPERATIONS,
    Genotype,
    genotype_from,
    read_genotype,
)
from facedistill.backbones.ghostfacenet import ghostfacenet_v1, ghostfacenet_v2
from facedistill.backbones.iresnet import CHANNELS, DEPTHS, iresnet18, iresnet34, iresnet50, iresnet100
from facedistill.backbones.measured import note_latency, noted_latency, processor
from facedistill.backbones.mixfacenet import mixfacenet_m, mixfacenet_s, mixfacenet_xs
from facedistill.backbones.mlp import Mlp
from facedistill.backbones.mobilefacenet import mobilefacenet, mobilefacenet_large
from facedistill.backbones.onnx import OnnxBackbone, open_session
from facedistill.backbones.onnx_graph import import_onnx_packages, inputs, outputs, read_graph
from facedistill.backbones.onnx_trial import one_line, tried
from facedistill.backbones.pocketnet import genotype, pocketnet_m, pocketnet_s
from facedistill.backbones.residual import Residual
from facedistill.backbones.resnet_small import ResNetSmall
from facedistill.backbones.shufflefacenet import ShuffleFaceNet
from facedistill.backbones.supernet import Supernet, edge_stride
from facedistill.backbones.timm_network import PREFIX, TimmNetwork
from facedistill.backbones.vit import vit_s, vit_t
from facedistill.recipe import build, find

__all__ = [
    "BACKBONES",
    "CHANNELS",
    "COSTS",
    "DEPTHS",
    "EDGES",
    "GENOTYPES",
    "INPUTS",
    "KINDS",
    "NODES",
    "OPERATIONS",
    "Backbone",
    "Genotype",
    "OnnxBackbone",
    "Supernet",
    "count_macs",
    "count_parameters",
    "create_backbone",
    "edge_stride",
    "genotype_from",
    "import_onnx_packages",
    "inputs",
    "note_latency",
    "noted_latency",
    "one_line",
    "open_session",
    "operation",
    "outline",
    "outputs",
    "processor",
    "read_genotype",
    "read_graph",
    "sample_shape",
    "takes_features",
    "tried",
]


def residual(
    embedding_dim: int = 512,
    input_size: int = 112,
    network: str = "mobilefacenet",
    options: dict[str, Any] | None = None,
) -> Residual:
    """Two networks of one kind whose embeddings are added: a student and its assistant.

    Args:
        network: a name that `create_backbone` takes. options: of that network. If it has the option `output`, the
            default is "affine": the last scale is trained, because the assistant's embedding has to become small.
    """
    options = dict(options or {})
    if "output" in inspect.signature(BACKBONES.get(network, TimmNetwork)).parameters:
        options.setdefault("output", "affine")
    student, assistant = (create_backbone(network, embedding_dim, input_size, **options) for _ in range(2))
    found = Residual(student, assistant)
    sizes = ("embedding_dim", "input_size")
    found.resolved = {"options": {k: v for k, v in student.spec["options"].items() if k not in sizes}}
    return found


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mobilefacenet": mobilefacenet,
    "mobilefacenet_large": mobilefacenet_large,
    "pocketnet_s": pocketnet_s,
    "pocketnet_m": pocketnet_m,
    "genotype": genotype,
    "ghostfacenet_v1": ghostfacenet_v1,
    "ghostfacenet_v2": ghostfacenet_v2,
    "mixfacenet_xs": mixfacenet_xs,
    "mixfacenet_s": mixfacenet_s,
    "mixfacenet_m": mixfacenet_m,
    "shufflefacenet": ShuffleFaceNet,
    "edgeface_xxs": edgeface_xxs,
    "edgeface_xs": edgeface_xs,
    "edgeface_s": edgeface_s,
    "vit_t": vit_t,
    "vit_s": vit_s,
    "iresnet18": iresnet18,
    "iresnet34": iresnet34,
    "iresnet50": iresnet50,
    "iresnet100": iresnet100,
    "resnet_small": ResNetSmall,
    "residual": residual,
    "mlp": Mlp,
}
_macs: dict[tuple[str, int, int], int] = {}


def create_backbone(name: str, embedding_dim: int = 512, input_size: int = 112, **options: Any) -> Backbone:
    """Return a freshly initialised network; its `spec` records name and options.

    Args:
        name: a row of BACKBONES; "timm:NAME", a network of timm; or "package.module:Class", a subclass of Backbone
            whose __init__ takes embedding_dim, input_size and its own options. Its module is imported; nothing of it is
            called unless it is a Backbone.

    Raises:
        UsageError: an unknown name or option (the nearest is suggested), a class that cannot be imported or is not
            a Backbone, or a value that the network refuses.
    """
    options = {"embedding_dim": embedding_dim, "input_size": input_size, **options}
    if name.startswith(PREFIX):
        kind: Callable[..., Backbone] = partial(TimmNetwork, name.removeprefix(PREFIX))
    else:
        kind = find(BACKBONES, name, "backbone", Backbone)
    backbone = build(kind, options, f"backbone '{name}'")
    backbone.spec = {"name": name, "options": options | backbone.resolved}
    return backbone


def takes_features(name: str) -> bool:
    """Return whether the network of this name, as `create_backbone` takes it, takes vectors and no images."""
    return not name.startswith(PREFIX) and getattr(find(BACKBONES, name, "backbone", Backbone), "takes_features", False)


def outline(name: str, **options: Any) -> dict[str, Tensor]:
    """Return the state dict of `create_backbone(name, **options)` without values: names, shapes and types alone.

    It allocates nothing, so sizes that a file claims can be compared with the file first.
    """
    with torch.device("meta"):
        return create_backbone(name, **options).state_dict()


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trained or frozen; buffers (running statistics) do not count."""
    if isinstance(module, Backbone) and module.foreign:
        return module.count_parameters()
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, input_size: int) -> int:
    """Return the multiply-adds of one sample, (3, input_size, input_size), in convolutions and matrix products.

    Nothing is computed: only shapes are traced, once for all networks of one spec. (An ONNX graph is run once.)
    """
    if isinstance(module, Backbone) and module.foreign:
        return module.count_macs()
    spec = getattr(module, "spec", None)
    key = (repr(spec), input_size, count_parameters(module))
    if not spec or key not in _macs:
        found = _trace_macs(module, input_size)
        if not spec:
            return found
        _macs[key] = found
    return _macs[key]


def _trace_macs(module: nn.Module, input_size: int) -> int:
    training = module.training
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        module.eval()
        with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(1, *sample_shape(module, input_size), device=device))
    finally:
        module.train(training)
    return counter.get_total_flops() // 2
