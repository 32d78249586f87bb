"""What the networks cost at their default options, and what their papers report: the rows of `list backbones`."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Parameters, multiply-adds of one image of 112x112 (millions), and IJB-C as published.

    Attributes:
        ijbc: TAR at FAR 1e-4 in percent; None where the authors print none. `data` is what they trained on: rows of
            different data are not comparable. The figures are the authors', of their recipes, not ours.
    """

    parameters: int
    macs: float
    ijbc: float | None = None
    data: str = ""


COSTS = {
    "mobilefacenet": Cost(1_199_488, 221.2, 89.13, "MS1MV2"),
    "mobilefacenet_large": Cost(2_059_520, 437.5, 93.61, "MS1MV2"),
    "pocketnet_s": Cost(925_632, 283.5, 91.62, "MS1MV2, distilled"),
    "pocketnet_m": Cost(1_686_656, 538.2, 92.63, "MS1MV2, distilled"),
    "ghostfacenet_v1": Cost(4_037_836, 59.3, 92.66, "MS1MV2"),
    "ghostfacenet_v2": Cost(6_754_536, 75.2),
    "mixfacenet_xs": Cost(1_040_866, 76.6, 90.73, "MS1MV2"),
    "mixfacenet_s": Cost(3_073_110, 218.1, 92.30, "MS1MV2"),
    "mixfacenet_m": Cost(3_953_046, 303.4, 93.42, "MS1MV2"),
    "shufflefacenet": Cost(3_064_160, 289.2, 94.3, "MS1MV2"),
    "edgeface_xxs": Cost(1_244_744, 47.3),
    "edgeface_xs": Cost(1_770_492, 76.9, 94.85, "WebFace260M, parts"),
    "edgeface_s": Cost(3_652_520, 152.9, 95.63, "WebFace260M, parts"),
    "vit_t": Cost(19_137_536, 1377.5),
    "vit_s": Cost(76_022_784, 5491.7),
    "iresnet18": Cost(24_025_600, 2610.0),
    "iresnet34": Cost(34_139_328, 4459.6),
    "iresnet50": Cost(43_590_848, 6309.3),
    "iresnet100": Cost(65_156_160, 12089.6),
    "resnet_small": Cost(305_616, 500.0),
    "residual": Cost(2_401_024, 442.3),
}
