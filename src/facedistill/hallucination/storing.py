"""The file of a hallucination network, fhn.safetensors: its weights, and in its header its preset and image size."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.hallucination.fhn import DEPTH, FHN, PRESETS, create_fhn
from facedistill.models import save_tensors

FILE = "fhn.safetensors"
KIND = "fhn 1"


def save_fhn(network: FHN, size: int, file: Path) -> None:
    """Write the network, trained on images of size x size."""
    with atomic_write(file) as temporary:
        header = json.dumps({"kind": KIND, "preset": network.preset, "size": size})
        save_tensors(network.state_dict(), temporary, {"facedistill": header})  # several entries come in any order


def load_fhn(file: Path) -> tuple[FHN, int]:
    """Return the network, in eval mode, and its image size. Raises UserError if the file is not one of `save_fhn`."""
    try:
        with safe_open(file, "pt") as stored:
            header = _header((stored.metadata() or {}).get("facedistill", ""))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as e:
        raise UserError(f"{file}: cannot be read ({e}); expected a hallucination network, {FILE}") from e
    preset, size = header.get("preset"), header.get("size")
    if header.get("kind") != KIND or preset not in PRESETS or type(size) is not int or size < 32 or size % 2**DEPTH:
        raise UserError(f"{file}: no hallucination network; expected {FILE}, which `hallucinate train` writes")
    network = create_fhn(preset)
    for name, own in network.state_dict().items():
        if name not in tensors or tensors[name].shape != own.shape or not tensors[name].isfinite().all():
            raise UserError(f"{file}: '{name}' is missing, damaged or of another size; copy the file again")
    network.load_state_dict(tensors)
    return network.eval(), size


def _header(text: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}
