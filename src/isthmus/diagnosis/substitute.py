"""A substitute: a small smooth network that imitates the suspect's answers, to be attacked in its place.

Its training data are the audited images, or some of many, moved at random within the ball, each with the answer that
the suspect gave; then moved to where the substitute itself is fooled, and asked about again (Papernot et al. 2017,
arXiv:1602.02697). What fools it is shown to the suspect, which judges. So a model without a usable gradient is attacked
with another's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import Threat
from isthmus.attacks.transfer import transferred as from_result
from isthmus.diagnosis.context import DiagnosisContext

ROUNDS, STEPS = 3, 150
MOST = 4096
"""Images that it learns from: each is then seen five times a round, and memory does not grow with what is audited."""
_BATCH = 128


def transferred(suspect: DiagnosisContext, rows: Int[Tensor, " some"]) -> Attack:
    """Images that fool the substitute, as an attack on the suspect."""
    model = trained(suspect)
    batch = suspect.examples.take(rows)
    suite = [{"name": "apgd", "steps": 30, "loss": "margin"}]
    result = robust_accuracy(model, batch.images, batch.labels, suspect.threat, suite, seed=suspect.seed)
    return from_result(result)


def trained(suspect: DiagnosisContext) -> nn.Module:
    """The substitute of a suspect, trained once and kept on it."""
    if suspect.substitute is None:
        suspect.substitute = _train(suspect)
    return suspect.substitute


def _train(suspect: DiagnosisContext) -> nn.Module:
    examples = suspect.examples
    if len(examples) > MOST:
        examples = examples.take(suspect.sample(most=MOST))
    shape = examples.images.shape[1:]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(suspect.seed)  # alone: those of other devices would not be put back
        model = _network(shape, suspect.classes)
        model(torch.zeros(1, *shape))  # its lazy layer, too, is drawn from this generator
        model.to(examples.images.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        images, answers = _answered(suspect, examples.images, examples.keys)
        for number in range(ROUNDS):
            for _ in range(STEPS if len(images) else 0):
                chosen = torch.randint(len(images), (min(_BATCH, len(images)),))
                loss = functional.kl_div(model(images[chosen]).log_softmax(1), answers[chosen], reduction="batchmean")
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            if number + 1 < ROUNDS:
                moved = _moved(model, examples.folded("substitute/round", number), suspect.threat)
                more, theirs = _answered(suspect, moved, examples.keys)
                images, answers = torch.cat([images, more]), torch.cat([answers, theirs])
    suspect.tell()
    return model.eval().requires_grad_(False)


def _moved(model: nn.Module, examples: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
    """Each example from a random point of the ball on, one step of ε to where the substitute errs."""
    found = []
    for rows in torch.split(torch.arange(len(examples)), 256):
        batch = examples.take(rows)
        x = threat.random_start(batch.images, batch.keys).requires_grad_()
        loss = functional.cross_entropy(model(x), batch.labels)
        (gradient,) = torch.autograd.grad(loss, x)
        found.append(threat.project(threat.step(x.detach(), gradient, threat.eps), batch.images))
    return torch.cat(found)


def _answered(
    suspect: DiagnosisContext, images: Tensor, keys: Tensor
) -> tuple[Float[Tensor, "some c h w"], Float[Tensor, "some classes"]]:
    """Those images that the suspect has a finite answer to, and what is to be learned of each."""
    parts = zip(torch.split(images, 256), torch.split(keys, 256), strict=True)
    logits = torch.cat([suspect.logits(x, k) for x, k in parts])
    finite = logits.isfinite().all(1)
    logits = logits[finite]
    if suspect.probabilities:
        logits = logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
    return images[finite], _targets(logits).to(images.dtype)


def _targets(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Probabilities that are neither uniform nor one-hot, on whatever scale the logits are.

    Every answer is as sure as half of them are, or less where it is less sure: so the boundary shows.
    """
    if len(logits) == 0:
        return logits
    logits = logits.double()
    spread = logits.std(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (2 * logits / spread * (spread / spread.median()).clamp(0.25, 1)).softmax(1)


def _network(shape: torch.Size, classes: int) -> nn.Module:
    c, h, w = shape
    if min(h, w) < 8:
        return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 256), nn.SiLU(), nn.Linear(256, classes))
    return nn.Sequential(
        nn.Conv2d(c, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.LazyLinear(128),
        nn.SiLU(),
        nn.Linear(128, classes),
    )
