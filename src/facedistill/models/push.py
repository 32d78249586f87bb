"""A model folder on the Hugging Face Hub, with a card that says how to load it from there."""

from pathlib import Path

from facedistill.errors import UsageError
from facedistill.models.card import model_card
from facedistill.models.folder import TEXT, load_model, model_folder, read_config, to_json
from facedistill.models.fused import FUSED
from facedistill.models.hub import CLASSIFIER_FILES, FILES, fetch, is_hub_address, parse_address, upload

CARD_HEAD = """---
library_name: facedistill
pipeline_tag: image-feature-extraction
tags: [face-recognition, knowledge-distillation]
---

"""


def push_model(model: str | Path, repository: str, *, public: bool = False, classifier: bool = True) -> str:
    """Upload a model folder, or a run's, as one commit. `load_model` loads it by the address that this returns.

    The repository is made where there is none; what it holds is then this model and nothing of an older one.

    Args:
        repository: OWNER/NAME.
        public: everyone may read it. A repository that is public already is refused without this.
        classifier: upload W and its class names too. They may be names of people.

    Returns:
        hf://OWNER/NAME@COMMIT.

    Raises:
        UsageError: no OWNER/NAME, or `model` is a bare .onnx. UserError: no model, no token, no network, no right.
    """
    name, revision = parse_address(repository)
    if revision is not None:
        raise UsageError(f"push: {repository} names a revision; expected OWNER/NAME: a push makes a new commit")
    folder = fetch(model, classifier) if is_hub_address(model) else model_folder(Path(model))
    if folder.is_file():
        raise UsageError(f"push: {model} is a file; `facedistill import` makes a model folder of it, to be pushed")
    load_model(folder, classifier=classifier)  # what does not load here would not load there
    config = read_config(folder)
    if config.get("architecture") == FUSED:
        raise UsageError(f"push: {model} is several models in one folder; push each of them, and fuse them there")
    if not classifier:
        config.pop("classifier", None)
    files: dict[str, Path | bytes] = {
        file: folder / file
        for file in FILES
        if (folder / file).is_file() and (classifier or file not in CLASSIFIER_FILES)
    }
    files["config.json"] = to_json(config).encode(*TEXT)
    card = model_card(config, name.partition("/")[2], f"hf://{name}")
    files["README.md"] = (CARD_HEAD + card).encode(*TEXT)
    return f"hf://{name}@{upload(files, name, public)}"
