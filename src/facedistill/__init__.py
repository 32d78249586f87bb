"""facedistill: distil a strong face-recognition teacher into a small student that lives in the teacher's space."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and where they live; imported when first used, so that the command line starts at once.
_PUBLIC = {
    "Model": "model",
    "InputSpec": "model",
    "load_model": "model",
    "save_model": "model",
    "import_model": "importers",
    "create_backbone": "backbones",
    "Classifier": "classifier",
    "FrozenMarginSoftmax": "frozen_softmax",
    "frozen_margin_softmax": "frozen_softmax",
    "margin_softmax": "margins",
    "ArcFace": "margins",
    "CosFace": "margins",
    "SphereFace": "margins",
    "CombinedMargin": "margins",
    "AdaFace": "margins",
    "CurricularFace": "margins",
    "Dataset": "data.dataset",
    "open_dataset": "data.dataset",
    "Embeddings": "embed",
    "embed_dataset": "embed",
    "evaluate": "evaluation",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "train": "engine",
    "UserError": "errors",
    "UsageError": "errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'facedistill' has no attribute '{name}'")
    return getattr(importlib.import_module(f"facedistill.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
