"""The heads that benchmarks/head.py compares, each one step: loss, its gradient for x, W's update if it is trained.

They are written from their definitions in plain torch, without the originals' logging and checks. ArcFace, m = 0.5,
s = 64. `products` is the type of the matrix products; the rest is float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.head import ArcFace, Rows, frozen_margin_softmax, neighbourhood

SCALE, SIZE, RATE = 64.0, 0.5, 0.1
MARGIN = ArcFace(SIZE)
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def streaming(rows: Rows, products: torch.dtype | None = None) -> Step:
    """Our head."""

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        loss = frozen_margin_softmax(x, labels, rows, MARGIN, SCALE, products=products).mean()
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    return step


def nearest(rows: Rows, neighbours: Tensor) -> Step:
    """Our head over the batch's classes and the nearest to each, which were found before."""

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        part, places = neighbourhood(rows, neighbours, labels)
        return streaming(part)(x, places)

    return step


def full_logits(weight: Tensor) -> Step:
    """A frozen W with all logits; the margin changes only the own class's. Products are in W's type."""

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        loss = _margin_loss((F.normalize(x).to(weight.dtype) @ weight.T).float(), labels)
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    return step


def sampled(weight: Tensor, rate: float = RATE) -> Step:
    """A frozen W, the batch's classes and others drawn at random, `rate` of all."""

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        index = _draw(labels, len(weight), rate)
        cos = (F.normalize(x).to(weight.dtype) @ weight[index].T).float()
        loss = _margin_loss(cos, torch.searchsorted(index, labels))
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    return step


def linear_cross_entropy(weight: Tensor) -> Step:
    """torch's fused linear cross-entropy, chunked. It has no margin."""

    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        options = torch.nn.LinearCrossEntropyOptions()
        loss = F.linear_cross_entropy(SCALE * F.normalize(x), weight, labels, options=options)
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    return step


class Trainable:
    """W trained by SGD with momentum, all its rows at every step.

    `published`: insightface's CombinedMarginLoss, which takes arccos and cos of all logits; else only of the own class.
    """

    def __init__(
        self,
        weight: Tensor,
        momentum: Tensor,
        published: bool = True,
        lr: float = 1e-6,
        products: torch.dtype = torch.float32,
    ) -> None:
        self.weight, self.momentum, self.published, self.lr, self.products = weight, momentum, published, lr, products

    def __call__(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x, w = x.detach().requires_grad_(), self.weight.detach().requires_grad_()
        loss, gradient, w_gradient = self._loss(x, w, labels)
        _sgd(self.weight, w_gradient, self.momentum, self.lr)
        return loss, gradient

    def _loss(self, x: Tensor, w: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cos = (F.normalize(x).to(self.products) @ F.normalize(w).to(self.products).T).float().clamp(-1, 1)
        loss = F.cross_entropy(_insightface(cos, labels), labels) if self.published else _margin_loss(cos, labels)
        x_gradient, w_gradient = torch.autograd.grad(loss, (x, w))
        return loss.detach(), x_gradient, w_gradient


class PartialFC(Trainable):
    """W trained at the batch's classes and others drawn at random, `rate` of all (arXiv 2203.15565).

    Only the drawn rows and their momentum are read and written.
    """

    rate = RATE

    def __call__(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        index = _draw(labels, len(self.weight), self.rate)
        x, w = x.detach().requires_grad_(), self.weight[index].requires_grad_()
        loss, gradient, w_gradient = self._loss(x, w, torch.searchsorted(index, labels))
        w, momentum = w.detach(), self.momentum[index]
        _sgd(w, w_gradient, momentum, self.lr)
        self.weight[index], self.momentum[index] = w, momentum
        return loss, gradient


def check_partial_fc() -> None:
    """Check that PartialFC at rate 1 is the whole softmax: the same loss, gradient and updated W; AssertionError."""
    generator = torch.Generator().manual_seed(0)
    weight, momentum = torch.randn(200, 16, generator=generator), torch.randn(200, 16, generator=generator)
    x, labels = torch.randn(32, 16, generator=generator), torch.randint(200, (32,), generator=generator)
    whole = Trainable(weight.clone(), momentum.clone(), lr=0.1)
    partial = PartialFC(weight.clone(), momentum.clone(), lr=0.1)
    partial.rate = 1.0
    torch.testing.assert_close(partial(x, labels), whole(x, labels))
    torch.testing.assert_close(partial.weight, whole.weight)
    torch.testing.assert_close(partial.momentum, whole.momentum)
    # The whole softmax in turn equals autograd and torch's own optimiser on the definition.
    theirs = weight.clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.state[theirs]["momentum_buffer"] = momentum.clone()
    margin = ArcFace(SIZE, gradient="straight_through")
    cos = F.normalize(x) @ F.normalize(theirs).T
    own = margin.target(cos.gather(1, labels[:, None])[:, 0])
    F.cross_entropy(SCALE * cos.scatter(1, labels[:, None], own[:, None]), labels).backward()
    optimizer.step()
    torch.testing.assert_close(whole.weight, theirs.detach(), rtol=1e-4, atol=1e-5)


def _margin_loss(cos: Tensor, labels: Tensor) -> Tensor:
    # Indexing, unlike gather, does not keep `cos` for its gradient, so `cos` may be changed in place.
    own = MARGIN.target(cos[torch.arange(len(labels)), labels])
    return F.cross_entropy(cos.scatter_(1, labels[:, None], own[:, None]).mul_(SCALE), labels)


def _insightface(cos: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        own = cos.gather(1, labels[:, None]).arccos_() + SIZE
        cos.arccos_().scatter_(1, labels[:, None], own).cos_()
    return cos * SCALE


def _draw(labels: Tensor, classes: int, rate: float) -> Tensor:
    """Return sorted classes: those of the batch, and others up to `rate` of all."""
    chance = torch.rand(classes)
    chance[labels] = 2.0
    return chance.topk(max(int(rate * classes), len(labels.unique())))[1].sort()[0]


def _sgd(weight: Tensor, gradient: Tensor, momentum: Tensor, lr: float) -> None:
    """Do a step of torch.optim.SGD, momentum 0.9, weight decay 5e-4."""
    momentum.mul_(0.9).add_(gradient.add_(weight, alpha=5e-4))
    weight.sub_(momentum, alpha=lr)
