"""Transfer: adversarial images found on other models, tried on this one.

A classifier that falls to another's adversarial images but not to attacks on itself hides its gradients (Athalye et al.
2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705). Costs one forward pass for each example that stands and
each result.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.optimized_model import fingerprint
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError

_log = logging.getLogger("isthmus.attacks.transfer")


class Config(Component):
    """Options of transfer. ``transfer:lenet.safetensors`` is short for one result.

    Attributes:
        results: files that :meth:`isthmus.attacks.RobustResult.save` wrote, of other models on the same examples. Each
            is an attack of its own in the suite: ``transfer``, ``transfer-2``, ... in this order.
    """

    argument: ClassVar[str | None] = "results"
    name: Literal["transfer"] = "transfer"
    results: Annotated[tuple[Path, ...], Field(min_length=1)]

    @field_validator("results", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | Path) else given


class Source(Component):
    """What an attack of this kind tries: where its witnesses come from, and what they are.

    Attributes:
        source: the file, or "memory".
        digest: SHA-256 of the witnesses and of the images they belong to.
    """

    name: Literal["transfer"] = "transfer"
    source: str
    digest: str


def stages(config: Config) -> list[Attack]:
    """An attack for each result.

    Raises:
        FileError: a file is missing, truncated, or something else.
    """
    return [_attack(RobustResult.load(path.expanduser()), str(path)) for path in config.results]


def transferred(result: RobustResult) -> Attack:
    """The witnesses of a result as an attack: ``robust_accuracy(model, ..., suite=[transferred(other), "pgd"])``.

    Args:
        result: of another model on the same examples, recognised by their images; order and number may differ. A
            witness outside the ball of the evaluation is brought into it.

    Raises:
        ConfigError: when it runs, and the examples are of another shape.
    """
    return _attack(result, "memory")


def _attack(result: RobustResult, source: str) -> Attack:
    adversarial = Witnesses(result)
    digest = fingerprint((adversarial.images, torch.tensor(list(b"".join(adversarial.rows)), dtype=torch.uint8)))
    return Attack("transfer", Source(source=source, digest=digest), perturb=adversarial.perturb)


class Witnesses:
    """The adversarial images of a result, found again by the image that they were made from.

    Args:
        result: only what attacks broke is of use; the witness of a clean error is the image itself.
    """

    def __init__(self, result: RobustResult) -> None:
        originals, useful = result.examples.images, result.broken & (result.stage > 0)
        there = originals.isfinite().flatten(1).all(1)  # a saved result lacks the images of examples that stand
        self.images = result.adversarial[useful]
        self.rows = {name: row for row, name in enumerate(_names(originals[useful]))}
        self.known, self.lacking = set(_names(originals[there])), int((~there).sum())
        self.strangers: set[bytes] = set()
        self.met = self.warned = False

    def perturb(
        self, config: Component, counted_model: CountedModel, batch: Batch, threat: Threat
    ) -> Float[Tensor, "n c h w"]:
        """The witness where there is one, else the image as it is.

        Raises:
            ConfigError: the examples are of another shape. Others of the same shape are warned of.
        """
        names = _names(batch.images)
        self._recognise(names, batch.images)
        found = [(row, self.rows[name]) for row, name in enumerate(names) if name in self.rows]
        x = batch.images.clone()
        if found:
            here, there = torch.tensor(found).T
            x[here.to(x.device)] = self.images[there].to(x.device)
        return x

    def _recognise(self, names: list[bytes], images: Tensor) -> None:
        """Warn of other examples than the result's: unknown images may be those that it lacks, but not more."""
        if self.images.shape[1:] != images.shape[1:]:
            raise ConfigError(
                f"transfer: the result is of images of shape {tuple(self.images.shape[1:])}, these are of "
                f"{tuple(images.shape[1:])}. Attack the other model on the same examples."
            )
        self.met = self.met or not self.known.isdisjoint(names)
        if self.met:
            return
        self.strangers.update(names)
        if len(self.strangers) > self.lacking and not self.warned:
            self.warned = True  # no error: those in common may all have fallen to earlier attacks
            _log.warning(
                "transfer: of the %d examples met so far none is one of the result's. Attack the other model on the "
                "same examples, with the same size, channels and scaling of images.",
                len(self.strangers),
            )


def _names(images: Float[Tensor, "n c h w"]) -> list[bytes]:
    """A digest of each image's float32 pixels; adding 0 makes −0 the 0 it equals."""
    pixels = (images.detach().cpu().float() + 0.0).contiguous().numpy()
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]
