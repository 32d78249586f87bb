"""The verb that puts a model on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

from facedistill.cli.app import Flag, answer, app


@app.command(sort_key=9)
def push(
    model: Path,
    repository: str,
    /,
    *,
    public: Annotated[bool, Flag] = False,
    without_classifier: Annotated[bool, Flag] = False,
) -> None:
    """Upload a model to the Hugging Face Hub, with its card.

    The repository is made where there is none, and is private. `fd.load_model("hf://OWNER/NAME")` loads the model, and
    every verb that takes a model takes hf://OWNER/NAME. Needs a token: `hf auth login`, or HF_TOKEN.

    Examples:

    `facedistill push run ada/student`

    `facedistill push run ada/student --without-classifier --public`

    Parameters
    ----------
    model:
        A model folder or a run.
    repository:
        OWNER/NAME.
    public:
        Everyone may read it. config.json and the card say how the model was made: look at them first.
    without_classifier:
        Leave W and its class names here. They may be names of people, and a student works without them.
    """
    from facedistill.models import push_model

    answer(push_model(model, repository, public=public, classifier=not without_classifier))
