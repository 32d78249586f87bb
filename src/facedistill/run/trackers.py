"""Trackers: programs that show a run's numbers while it trains, and its plots at the end. None of them stops a run.

TensorBoard writes into the run folder. Weights & Biases and MLflow go where their own variables say (WANDB_MODE,
MLFLOW_TRACKING_URI); MLflow without one writes into the run folder.
"""

import importlib.util
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from facedistill.errors import UserError, printable
from facedistill.files import fingerprint
from facedistill.progress import say

PROJECT = "facedistill"


class Tracker(ABC):
    """One tracker of one run. Methods may raise anything.

    Args:
        run: the run's folder. step: the last one before; what an earlier process told of later ones is void.
    """

    package: ClassVar[str]

    @abstractmethod
    def __init__(self, run: Path, step: int) -> None: ...

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    @abstractmethod
    def picture(self, name: str, png: bytes) -> None: ...

    @abstractmethod
    def end(self) -> None: ...


class TensorBoard(Tracker):
    package = "tensorboard"

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer, self.step = SummaryWriter(str(run / "tensorboard"), purge_step=step), step

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def picture(self, name: str, png: bytes) -> None:
        import io

        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), self.step, dataformats="HWC")

    def end(self) -> None:
        self.writer.close()


class Wandb(Tracker):
    package = "wandb"

    def __init__(self, run: Path, step: int) -> None:
        import wandb

        self.wandb = wandb
        made = fingerprint(run.resolve())  # a run that is resumed goes on in the same place
        recipe = (run / "recipe.yaml").read_text(encoding="utf-8") if (run / "recipe.yaml").exists() else ""
        self.run = wandb.init(
            project=PROJECT, name=run.name, id=made, resume="allow", dir=str(run), config={"recipe": recipe}
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, name: str, png: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture.png"
            file.write_bytes(png)
            self.run.log({name: self.wandb.Image(str(file))})

    def end(self) -> None:
        self.run.finish()


class MLflow(Tracker):
    package = "mlflow"

    def __init__(self, run: Path, step: int) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # versions that prefer a data base ask for this
        from mlflow import MlflowClient

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (run / "mlflow").resolve().as_uri())
        found = self.client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self.client.create_experiment(PROJECT)
        made = fingerprint(run.resolve())
        earlier = self.client.search_runs([experiment], f"tags.folder = '{made}'")
        self.id = (
            earlier[0] if earlier else self.client.create_run(experiment, tags={"folder": made}, run_name=run.name)
        ).info.run_id

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.client.log_metric(self.id, self._name(key), value, step=step)

    def picture(self, name: str, png: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{self._name(name).replace('/', ' ')}.png"
            file.write_bytes(png)
            self.client.log_artifact(self.id, str(file), "plots")

    def end(self) -> None:
        self.client.set_terminated(self.id)

    @staticmethod
    def _name(key: str) -> str:
        return re.sub(r"[^\w\-. /]", "_", key)


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


class Trackers:
    """All trackers of a run. One that fails is named in a line and left out from then on.

    Args:
        track: "none", a name of TRACKERS, or several.

    Raises:
        UserError: the package of one is not installed.
    """

    def __init__(self, track: str | Sequence[str], run: Path) -> None:
        self.run, self.open = run, dict[str, Tracker]()
        self.names = [] if track == "none" else [track] if isinstance(track, str) else list(dict.fromkeys(track))
        for name in self.names:
            if importlib.util.find_spec(TRACKERS[name].package) is None:
                extra = "track" if name == "tensorboard" else name
                raise UserError(f"track: {name} is not installed; pip install 'facedistill[{extra}]'")

    def begin(self, step: int) -> None:
        """Start them; `step` is the last one that is done."""
        for name in self.names:
            self._try(name, lambda name=name: self.open.update({name: TRACKERS[name](self.run, step)}))  # type: ignore[misc]

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.numbers(step, values))

    def pictures(self, pictures: Mapping[str, bytes]) -> None:
        for name, png in pictures.items():
            self._each(lambda tracker, name=name, png=png: tracker.picture(name, png))  # type: ignore[misc]

    def end(self) -> None:
        self._each(lambda tracker: tracker.end())
        self.open.clear()

    def _each(self, do: Callable[[Tracker], Any]) -> None:
        for name, tracker in list(self.open.items()):
            self._try(name, lambda tracker=tracker: do(tracker))  # type: ignore[misc]

    def _try(self, name: str, do: Callable[[], Any]) -> None:
        try:
            do()
        except Exception as e:  # a foreign program may raise anything; the run is worth more
            self.open.pop(name, None)
            reason = printable(" ".join(str(e).split())[:200])
            say(f"track: {name} failed ({type(e).__name__}: {reason}); the run goes on without it")
