"""Transfer: adversarial images of other models, tried on this one.

A classifier that is broken by another model's adversarial images but not by direct attacks hides its gradients
(Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705). Costs one forward pass for each robust
example and each result.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor

from isthmus.attacks.attack import Attack, SingleShotAttack, Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.state import fingerprint
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ConfigError

_log = logging.getLogger("isthmus.attacks.transfer")


class Transfer(Attack):
    """Adversarial images of saved results. ``transfer:lenet.safetensors`` is short for one result.

    Attributes:
        results: files that :meth:`isthmus.attacks.RobustResult.save` wrote, of other models on the same examples. Each
            is a stage of its own in the suite: ``transfer``, ``transfer-2``, ... in this order.
    """

    argument: ClassVar[str | None] = "results"
    name: Literal["transfer"] = "transfer"
    results: Annotated[tuple[Path, ...], Field(min_length=1)]

    @field_validator("results", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | Path) else given

    def stages(self) -> Sequence[Stage]:
        """A stage for each result.

        Raises:
            FileError: a file is missing, truncated, or something else.
        """
        loaded = [transferred(RobustResult.load(path.expanduser()), str(path)) for path in self.results]
        return [Stage(each.label, each) for each in loaded]


def transferred(result: RobustResult, source: str = "memory") -> Attack:
    """The adversarial images of a result as an attack: ``suite=[transferred(other), "pgd"]``.

    Args:
        result: of another model on the same examples, recognised by their images; order and number may differ. An
            adversarial image outside the ball of the evaluation is projected onto it.
        source: where the result is from.

    Raises:
        ConfigError: when it runs, if the examples are of another shape.
    """
    useful = result.broken & (result.stage > 0)  # the adversarial image of a clean error is the image itself
    return proposed(result.examples.images, result.adversarial, useful, source)


def proposed(
    originals: Float[Tensor, "n c h w"],
    adversarial: Float[Tensor, "n c h w"],
    useful: Bool[Tensor, " n"],
    source: str = "memory",
) -> Attack:
    """Images as an attack on the images that they were made from; see :func:`transferred`.

    Args:
        useful: the examples whose adversarial image is proposed.
    """
    found = _Found(originals, adversarial, useful)
    digest = fingerprint((found.images, torch.tensor(list(b"".join(found.rows)), dtype=torch.uint8)))
    attack = TransferredImages(source=source, digest=digest)
    attack._found = found
    return attack


class TransferredImages(SingleShotAttack):
    """The adversarial images of one result.

    Attributes:
        source: the result's file, or "memory".
        digest: SHA-256 of the adversarial images and of the images they belong to.
    """

    name: Literal["transfer"] = "transfer"
    source: str
    digest: str
    _found: _Found | None = PrivateAttr(None)

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """The adversarial image of each example that has one, else the image itself.

        Raises:
            ConfigError: the examples are of another shape. Others of the same shape cause a warning.
        """
        assert self._found is not None, "made by transferred()"
        return self._found.images_for(batch.images)


class _Found:
    """Adversarial images, looked up by the image that they were made from.

    Args: those of :func:`proposed`.
    """

    def __init__(self, originals: Tensor, adversarial: Tensor, useful: Tensor) -> None:
        self.images = adversarial[useful]
        self.rows = {name: row for row, name in enumerate(_names(originals[useful]))}
        self.known = set(_names(originals))
        self.recognised = self.warned = False

    def images_for(self, images: Tensor) -> Tensor:
        """The adversarial image of each image that has one, else the image itself."""
        names = _names(images)
        self._check(names, images)
        found = [(row, self.rows[name]) for row, name in enumerate(names) if name in self.rows]
        x = images.clone()
        if found:
            here, there = torch.tensor(found).T
            x[here.to(x.device)] = self.images[there].to(x.device)
        return x

    def _check(self, names: list[bytes], images: Tensor) -> None:
        """Warn, once, if none of the first examples is one of the result's."""
        if self.images.shape[1:] != images.shape[1:]:
            raise ConfigError(
                f"transfer: the result is of images of shape {tuple(self.images.shape[1:])}, these are of "
                f"{tuple(images.shape[1:])}. Attack the other model on the same examples."
            )
        self.recognised = self.recognised or not self.known.isdisjoint(names)
        if not self.recognised and not self.warned:
            self.warned = True  # not an error: the examples in common may all be broken already
            _log.warning(
                "transfer: none of the first %d examples is one of the result's. Attack the other model on the same "
                "examples, with the same size, channels and scaling of images.",
                len(names),
            )


def _names(images: Float[Tensor, "n c h w"]) -> list[bytes]:
    """A digest of each image's float32 pixels; adding 0 makes −0 the 0 it equals."""
    pixels = (images.detach().cpu().float() + 0.0).contiguous().numpy()
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]
