"""Calibrated thresholds, kept in the folder of their model."""

from pathlib import Path
from typing import Any

from facedistill.errors import UsageError
from facedistill.files import atomic_write, locked
from facedistill.models.card import model_card
from facedistill.models.folder import TEXT, model_folder, read_config, to_json
from facedistill.models.hub import is_hub_address


def save_thresholds(path: str | Path, thresholds: list[dict[str, Any]]) -> None:
    """Add calibrated thresholds to the folder of a model or run. Those of the same rate, models and flip are replaced.

    Args:
        thresholds: {"far": target, "value": cosine, "interval": [low, high], "probe", "gallery": fingerprints of the
            models, "flip", and where it was measured}.

    Raises:
        UsageError: `path` is a bare .onnx, which has no place for them.
        UserError: no model folder, or it cannot be written.
    """
    folder = thresholds_folder(path)
    read_config(folder)

    def holds_for(threshold: dict[str, Any]) -> list[Any]:
        return [threshold.get(key) for key in ("far", "probe", "gallery", "flip")]

    replaced = [holds_for(new) for new in thresholds]
    with locked(folder / ".lock"):  # another process may be adding its own
        config = read_config(folder)
        config["thresholds"] = [t for t in config["thresholds"] if holds_for(t) not in replaced] + thresholds
        for name, text in (("config.json", to_json(config)), ("README.md", model_card(config, folder.name))):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(text, *TEXT)


def thresholds_folder(path: str | Path) -> Path:
    """Return the folder that keeps the thresholds of a model folder or run. Raises UsageError for a bare .onnx."""
    if is_hub_address(path):
        raise UsageError(f"{path}: lies on the hub; save the model to a folder, measure there, and push it again")
    folder = model_folder(Path(path))
    if folder.is_file():
        raise UsageError(
            f"{path}: a file has no place for a threshold; `facedistill import` makes a model folder of it"
        )
    return folder
