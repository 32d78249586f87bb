"""The network that a stage begins with, and the one that a path holds."""

from collections.abc import Sequence
from pathlib import Path

from facedistill.errors import UsageError
from facedistill.files import fingerprint
from facedistill.hallucination.fhn import FHN, create_fhn
from facedistill.hallucination.stages import STAGES
from facedistill.hallucination.storing import FILE, load_fhn
from facedistill.models import Model, load_model
from facedistill.recipe import Hallucination

JOINT, MEASURES = "joint", "measures.json"  # measures.json marks a stage as finished
ORDER = (*STAGES, JOINT)


def start_of(settings: Hallucination, out: Path, stage: str) -> tuple[FHN, str]:
    """Return the network that a stage begins with, and a fingerprint of it: that of an earlier stage, or a new one."""
    needs_images = stage in ("adversarial", JOINT)
    earlier = [name for name in ORDER[: ORDER.index(stage)] if not (needs_images and name == "priors")]
    found = next((out / name / FILE for name in reversed(earlier) if (out / name / MEASURES).exists()), None)
    if found is None:
        if needs_images:
            raise UsageError(
                f"hallucinate train: stage {stage} needs a finished {out / 'pairs'}: train --stage pairs first"
            )
        return create_fhn(settings.preset), ""
    network, size = load_fhn(found)
    if (network.preset, size) != (settings.preset, settings.size):
        raise UsageError(
            f"{found}: preset {network.preset}, {size} pixels, but the recipe has {settings.preset}, {settings.size}; "
            "use one of both in all stages"
        )
    return network.train(), fingerprint(found.read_bytes())


def network_of(path: Path) -> tuple[FHN, int]:
    """Return the hallucination network at a path, and its image size.

    `path`: a fhn.safetensors, a folder with one, a run of `hallucinate train` (its latest stage), or a composed model.

    Raises UserError for anything else.
    """
    if path.is_file():
        return load_fhn(path)
    stages: Sequence[Path] = [path / name for name in reversed(ORDER)]
    for folder in (path, *stages):
        if (folder / FILE).exists() and folder.name != "priors":
            return load_fhn(folder / FILE)
        if (folder / "config.json").exists() or (folder / "model" / "config.json").exists():
            return _inside(load_model(folder, classifier=False), folder)
    return load_fhn(path / FILE)


def _inside(model: Model, path: Path) -> tuple[FHN, int]:
    network = getattr(model.backbone, "fhn", None)
    if not isinstance(network, FHN):
        raise UsageError(
            f"{path}: this model has no hallucination network; expected a run of `hallucinate train`, its {FILE}, or a "
            "model composed of one and a recogniser"
        )
    return network.eval(), model.input_size
