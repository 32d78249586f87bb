"""What a step of each stage does: which networks it moves, by which losses.

priors        the prior network alone, on faces of full and of low resolution, against their landmarks and classes
pairs         the whole network, against the clean image of each low one
adversarial   coarse network, encoder, decoder and the degradation generator, against two discriminators: real images
              of low resolution have no clean partner. The prior network is frozen, as published
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.data import ImageBatch, View, make_view
from facedistill.errors import UsageError
from facedistill.hallucination.adversaries import SCALES, DegradationGenerator, Discriminator
from facedistill.hallucination.fhn import FHN, Hallucinated
from facedistill.hallucination.images import LowImages
from facedistill.hallucination.losses import (
    Maps,
    clean_discriminator_loss,
    feature_loss,
    is_real,
    low_discriminator_loss,
    pixel_loss,
    prior_losses,
)
from facedistill.hallucination.pairs import Geometry, Pairs, make_pairs, to_network, to_pixels
from facedistill.hallucination.priors import Priors, require_priors
from facedistill.models import Model
from facedistill.recipe import Hallucination, Recipe
from facedistill.training import stop_if_not_finite

BETAS = (0.5, 0.999)  # of Adam, as published
EVERY = 2  # steps of the discriminators to one of the generators, as published
SLOWER = 0.5  # the discriminators' learning rate, as a share of the generators', as published
# The simulated camera: what `hallucination.degrade` leaves out. Pairs lie pixel over pixel, so the view moves nothing.
DEGRADE: Mapping[str, Any] = {"smallest": 8, "largest": 56, "clean": 0.1}
FIXED: Mapping[str, Any] = {"shift": 0.0, "rotate": 0.0, "teacher": "clean"}


@dataclass
class Given:
    """What the stages are made of.

    Attributes:
        features: the model whose stage maps are compared; None for none.
        low: real images of low resolution; None except for the adversarial stage.
    """

    recipe: Recipe
    settings: Hallucination
    run: Path
    fhn: FHN
    priors: Priors | None
    features: Model | None
    low: LowImages | None


class Optimizers(dict[str, torch.optim.Optimizer]):
    """Several optimisers as one in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.items():
            optimizer.load_state_dict(state[name])


@dataclass
class Losses:
    """The losses of a step by name, weighted, their sum, and the norm of its gradient."""

    parts: dict[str, Tensor]
    total: Tensor
    norm: Tensor


class Stage(nn.Module, ABC):
    """The networks that a stage trains, and its step. What it holds as a module is what a checkpoint holds."""

    degrade: ClassVar[Mapping[str, Any]] = {}
    pictures: ClassVar[bool] = True  # False if the network gives no images yet

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.given, self.fhn = given, given.fhn
        settings, recipe = given.settings, given.recipe
        self.geometry = Geometry(settings.rotate, settings.shift)
        self.view = camera(settings.degrade, self.degrade)
        self.clip = recipe.schedule.clip or float("inf")
        self.optimizers = Optimizers()

    @abstractmethod
    def step(self, images: ImageBatch, step: int, rate: float) -> Losses:
        """Move the networks by one step, at the learning rate `rate`."""

    def look(self, images: Tensor) -> Hallucinated:
        """Return what the network now gives for images, -1..1."""
        return self.fhn.with_priors(images.to(self.device))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def pairs(self, images: ImageBatch, step: int) -> Pairs:
        given = self.given
        found = make_pairs(images, given.priors, given.settings.size, self.geometry, self.view, given.recipe.seed, step)
        maps = (None if x is None else x.to(self.device) for x in (found.landmarks, found.parsing))
        return Pairs(found.low.to(self.device), found.high.to(self.device), *maps)

    def train_with(self, name: str, parameters: Iterable[nn.Parameter]) -> None:
        """Make an optimiser: Adam with the betas published and the recipe's weight decay (decoupled: AdamW)."""
        trained = [p for p in parameters if p.requires_grad]
        decay = self.given.recipe.schedule.weight_decay
        self.optimizers[name] = torch.optim.AdamW(trained, betas=BETAS, weight_decay=decay)

    def descend(self, name: str, parts: dict[str, Tensor], step: int, rate: float) -> Losses:
        """Take a step of one optimiser. Raises UserError, before anything moves, if loss or gradient is not finite."""
        optimizer, total = self.optimizers[name], torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        (group,) = optimizer.param_groups
        norm = nn.utils.clip_grad_norm_(group["params"], self.clip)
        stop_if_not_finite(total, norm, step, self.given.run)
        group["lr"] = rate
        optimizer.step()
        return Losses({key: value.detach() for key, value in parts.items()}, total.detach(), norm)

    def maps(self, images: Tensor) -> Maps:
        assert self.given.features is not None
        return self.given.features.outputs(to_pixels(images)).features

    def weighted(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses times their weights in the recipe, without those of weight 0."""
        weights = {name: getattr(self.given.settings, name.partition("_")[0]) for name in parts}
        return {name: weights[name] * value for name, value in parts.items() if weights[name]}

    @property
    def compares_features(self) -> bool:
        return self.given.features is not None and self.given.settings.feature > 0


class PriorStage(Stage):
    """The prior network learns from faces as they are, and as sharp or blurred as coarse images may be."""

    degrade: ClassVar[Mapping[str, Any]] = {"clean": 0.5}
    pictures: ClassVar[bool] = False

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        require_priors(given.priors)
        self.train_with("prior", self.fhn.prior.parameters())

    def step(self, images: ImageBatch, step: int, rate: float) -> Losses:
        pairs = self.pairs(images, step)
        assert pairs.landmarks is not None and pairs.parsing is not None
        losses = prior_losses(self._priors_of(pairs.low), pairs.landmarks, pairs.parsing)
        return self.descend("prior", self.weighted(losses), step, rate)

    def look(self, images: Tensor) -> Hallucinated:
        return self._priors_of(images.to(self.device))

    def _priors_of(self, images: Tensor) -> Hallucinated:
        _, landmarks, parsing = self.fhn.prior(images)
        return Hallucinated(images, images, landmarks, parsing)


class PairStage(Stage):
    """The whole network learns from pairs: pixels, a recogniser's features, and the priors where they are known."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.train_with("fhn", self.fhn.parameters())

    def step(self, images: ImageBatch, step: int, rate: float) -> Losses:
        pairs = self.pairs(images, step)
        found = self.fhn.with_priors(pairs.low)
        losses = {"pixel": pixel_loss(found, pairs.high)}
        if self.compares_features:
            true = self.maps(pairs.high)
            losses["feature"] = feature_loss(self.maps(found.coarse), true) + feature_loss(self.maps(found.fine), true)
        if pairs.landmarks is not None and pairs.parsing is not None:
            losses |= prior_losses(found, pairs.landmarks, pairs.parsing)
        return self.descend("fhn", self.weighted(losses), step, rate)


class AdversarialStage(Stage):
    """Three paths: real low images are raised, clean ones are degraded, and each comes back to itself.

    One step of the generators has the losses of the authors' two (for the coarse and the fine image), because the
    networks have been trained on pairs before. Their features compare different people; ours, a face with itself.
    """

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        if given.low is None:
            raise UsageError(
                "hallucinate train: stage adversarial needs real images of low resolution; set hallucination.low to "
                "their folder"
            )
        self.clean_judge, self.low_judge = Discriminator(), Discriminator(len(SCALES))
        self.degrader = DegradationGenerator()
        self.fhn.prior.requires_grad_(False)
        generators = (self.fhn.coarse, self.fhn.encoder, self.fhn.decoder, self.degrader)
        self.train_with("generators", (p for network in generators for p in network.parameters()))
        judges = (self.clean_judge, self.low_judge)
        self.train_with("discriminators", (p for network in judges for p in network.parameters()))

    def step(self, images: ImageBatch, step: int, rate: float) -> Losses:
        assert self.given.low is not None
        high = self.pairs(images, step).high
        pixels, scales = self.given.low.draw(len(high), self.given.recipe.seed, step)
        low, scales = to_network(pixels).to(self.device), scales.to(self.device)
        generator = torch.Generator().manual_seed(step)
        wanted = torch.randint(len(SCALES), (len(high),), generator=generator).to(self.device)
        losses = self.descend("discriminators", self.judged(high, low, scales, wanted), step, SLOWER * rate)
        if step % EVERY == EVERY - 1:
            made = self.descend("generators", self.generated(high, low, scales, wanted), step, rate)
            losses = Losses(losses.parts | made.parts, losses.total + made.total, made.norm)
        return losses

    def judged(self, high: Tensor, low: Tensor, scales: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the losses of both discriminators; the generators get no gradient."""
        with torch.no_grad():
            raised, degraded = self.fhn.with_priors(low), self.degrader(high, wanted)
        real, scale_logits = self.low_judge.with_scales(low)
        judge = self.clean_judge
        return {
            "clean_discriminator": clean_discriminator_loss(judge(high), judge(raised.coarse), judge(raised.fine)),
            "low_discriminator": low_discriminator_loss(real, self.low_judge(degraded), scale_logits, scales),
        }

    def generated(self, high: Tensor, low: Tensor, scales: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the losses of the generators: to be taken for real, and to come back to oneself."""
        raised, degraded = self.fhn.with_priors(low), self.degrader(high, wanted)
        back = self.fhn.with_priors(degraded)
        real, scale_logits = self.low_judge.with_scales(degraded)
        fooled = is_real(self.clean_judge(raised.coarse)) + is_real(self.clean_judge(raised.fine)) + is_real(real)
        again = partial(self.degrader, scales=scales)
        losses = {
            "adversarial": fooled + F.cross_entropy(scale_logits, wanted),
            "pixel_clean": pixel_loss(back, high),
            "pixel_low": F.mse_loss(again(raised.coarse), low) + F.mse_loss(again(raised.fine), low),
        }
        if self.compares_features:
            true = self.maps(high)
            losses["feature"] = feature_loss(self.maps(back.coarse), true) + feature_loss(self.maps(back.fine), true)
        return self.weighted(losses)


STAGES: dict[str, type[Stage]] = {"priors": PriorStage, "pairs": PairStage, "adversarial": AdversarialStage}


def camera(options: Mapping[str, Any], of_stage: Mapping[str, Any]) -> View:
    """Return the view that makes low images. Raises UsageError for an option that does not fit."""
    if fixed := [name for name in options if name in FIXED]:
        raise UsageError(
            f"hallucination.degrade.{fixed[0]}: pairs lie pixel over pixel; set hallucination.shift and "
            "hallucination.rotate, which move both"
        )
    return make_view("degrade", **{**DEGRADE, **of_stage, **options, **FIXED})
