"""Attacks that need no gradient of the model: other images, and transfer from a substitute."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import PrivateAttr
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.attack import Attack, SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.attacks.transfer import transferred
from isthmus.diagnosis.context import DiagnosisContext

ROUNDS, STEPS = 3, 150
MAX_IMAGES = 4096
"""Training images of the substitute: each is seen five times a round, and memory does not grow with the data."""

_BATCH_SIZE = 128


class Neighbours(SingleShotAttack):
    """Move each image as far as the ball allows towards the nearest (ℓ2) given examples of other labels.

    Models whose output jumps far away from the image, such as nearest-neighbour classifiers, give a local search
    nothing to follow. See :func:`neighbours`.

    Attributes:
        most: number of nearest images of other labels to try, one forward pass each.
    """

    name: Literal["neighbours"] = "neighbours"
    most: int = 20
    _examples: Batch | None = PrivateAttr(None)

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """The image of smallest margin among the projections of the nearest examples."""
        assert self._examples is not None, "made by neighbours()"
        others = self._examples.images.to(batch.images)
        distances = torch.cdist(batch.images.flatten(1), others.flatten(1))
        same = batch.labels[:, None] == self._examples.labels.to(batch.labels.device)[None]
        nearest = distances.masked_fill(same, torch.inf).topk(min(self.most, len(others)), largest=False).indices
        best, smallest = batch.images.clone(), torch.full_like(distances[:, 0], torch.inf)
        for towards in nearest.T:
            x = threat.project(others[towards], batch.images)
            margin = batch.margin(counted_model.query(x, batch.keys, None).logits)
            better = margin < smallest
            best[better], smallest[better] = x[better], margin[better]
        return best


def neighbours(examples: Batch, most: int = 20) -> Neighbours:
    """The attack towards these examples."""
    attack = Neighbours(most=most)
    attack._examples = examples
    return attack


def substitute_transfer(context: DiagnosisContext, rows: Int[Tensor, " some"]) -> Attack:
    """An attack that proposes adversarial examples of the substitute."""
    batch = context.examples.take(rows)
    suite = [{"name": "apgd", "steps": 30, "loss": "margin"}]
    result = robust_accuracy(substitute(context), batch.images, batch.labels, context.threat, suite, seed=context.seed)
    return transferred(result)


def substitute(context: DiagnosisContext) -> nn.Module:
    """A small smooth network trained to imitate the model's outputs; trained once for each context.

    Its training data are audited images, moved at random within the ball, with the model's outputs as targets. In each
    round they are moved further, to where the substitute errs, and the model is queried again (Papernot et al. 2017,
    arXiv:1602.02697).
    """
    if context.substitute is None:
        context.substitute = _train(context)
    return context.substitute


def _train(context: DiagnosisContext) -> nn.Module:
    examples = context.examples
    if len(examples) > MAX_IMAGES:
        examples = examples.take(context.sample(most=MAX_IMAGES))
    shape = examples.images.shape[1:]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(context.seed)  # no other generator: fork_rng would not restore it
        model = _network(shape, context.num_classes)
        model(torch.zeros(1, *shape))  # initialises the lazy layer from this generator, too
        model.to(examples.images.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        images, targets = labelled(context, examples.images, examples.keys)
        for number in range(ROUNDS):
            for _ in range(STEPS if len(images) else 0):
                chosen = torch.randint(len(images), (min(_BATCH_SIZE, len(images)),))
                loss = functional.kl_div(model(images[chosen]).log_softmax(1), targets[chosen], reduction="batchmean")
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            if number + 1 < ROUNDS:
                moved = _moved(model, examples.folded("substitute/round", number), context.threat)
                new_images, new_targets = labelled(context, moved, examples.keys)
                images, targets = torch.cat([images, new_images]), torch.cat([targets, new_targets])
    context.spending.report()
    return model.eval().requires_grad_(False)


def _moved(model: nn.Module, examples: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
    """Each example after one step of length ε that raises the substitute's loss, from a random point of the ball."""
    found = []
    for rows in torch.split(torch.arange(len(examples)), 256):
        batch = examples.take(rows)
        x = threat.random_start(batch.images, batch.keys).requires_grad_()
        loss = functional.cross_entropy(model(x), batch.labels)
        (gradient,) = torch.autograd.grad(loss, x)
        found.append(threat.project(threat.step(x.detach(), gradient, threat.eps), batch.images))
    return torch.cat(found)


def labelled(
    context: DiagnosisContext, images: Tensor, keys: Tensor
) -> tuple[Float[Tensor, "some c h w"], Float[Tensor, "some classes"]]:
    """Images with finite logits, and the substitute's targets for them."""
    parts = zip(torch.split(images, 256), torch.split(keys, 256), strict=True)
    logits = torch.cat([context.queries.logits(x, k) for x, k in parts])
    finite = logits.isfinite().all(1)
    return images[finite], soft_targets(logits[finite]).to(images.dtype)


def soft_targets(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Probabilities that are neither uniform nor one-hot, for logits of any scale.

    Logits are rescaled to the median spread or, if their spread is smaller, in proportion to it, so that the
    substitute learns where the decision boundary is.
    """
    if len(logits) == 0:
        return logits
    logits = logits.double()
    spread = logits.std(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (2 * logits / spread * (spread / spread.median()).clamp(0.25, 1)).softmax(1)


def _network(shape: torch.Size, num_classes: int) -> nn.Module:
    c, h, w = shape
    if min(h, w) < 8:
        return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 256), nn.SiLU(), nn.Linear(256, num_classes))
    return nn.Sequential(
        nn.Conv2d(c, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.LazyLinear(128),
        nn.SiLU(),
        nn.Linear(128, num_classes),
    )
