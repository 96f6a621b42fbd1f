"""Models from elsewhere, by one name: a function, a file, or an entry of a model hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from torch import nn

from isthmus.core.config import split_names, split_options
from isthmus.core.errors import ConfigError, ModelError, shown
from isthmus.core.files import sha256
from isthmus.models.ensembles import ensemble
from isthmus.models.external import function, hubs, model_files
from isthmus.models.external.weights import load_weights
from isthmus.models.preprocessing import Preprocessing, preprocessing_of

ENSEMBLE = "ensemble:"
"""Prefix of several models whose probabilities are averaged: ``ensemble:a.py:build,b.py:build,width=32``."""

_LONGEST = 60  # characters of an ensemble's title

_HUBS: Mapping[str, Callable[..., tuple[nn.Module, Preprocessing]]] = {
    "timm": hubs.timm,
    "torchvision": hubs.torchvision,
    "hf": hubs.hugging_face,
    "robustbench": hubs.robustbench,
}


def load_model(
    spec: str,
    weights: str | Path | None = None,
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """Load a classifier of images in [0, 1], in eval mode.

    A function, a TorchScript file and a ``torch.export`` file are programs: load them only from people whose code you
    would run. Weights, ONNX files and Hugging Face models (safetensors, without remote code) run no code.

    Args:
        spec: one of

            * ``package.module:function``, or ``path.py:function``: called with the options after it, as in
              ``nets.py:build,width=32``. The current folder is importable.
            * a file ``.onnx``, converted to torch where that gives the same logits, so that it has gradients;
              otherwise a black box, for attacks that need none. ``.pt2`` of ``torch.export``, or TorchScript.
            * ``timm:NAME``, ``torchvision:NAME``: with pretrained weights, unless ``weights`` are given.
            * ``hf:NAME``: an image classifier of the Hugging Face hub, or in a local folder.
            * ``robustbench:NAME``, ``robustbench:NAME/DATASET/THREAT``: CIFAR-10 and Linf unless named.
            * ``ensemble:A,B,…``: the mean of the probabilities of several of these.

        weights: a safetensors file, or a ``.pt`` file of a state dict, which is read with ``weights_only=True``.
        mean, std: the normalisation that the model expects (:func:`isthmus.normalized`), or as ``mean`` the name of a
            preset; "0..255" for a model of 8-bit pixels. Models of a hub bring their own.
        size: height and width that the model takes; images are resized to it. Models of a hub bring their own.

    Raises:
        ModelError: nothing has that name, it fails, or the weights do not fit.
        FileError: a file cannot be read.
        ConfigError: an impossible normalisation.
    """
    return load(spec, weights, preprocessing_of(mean, std, size))


def load(spec: str, weights: str | Path | None, preprocessing: Preprocessing) -> nn.Module:
    """:func:`load_model` with the preprocessing as one object."""
    if not isinstance(spec, str | PurePath):
        raise ModelError(f"A model is named by text such as 'nets.py:build' or 'model.onnx'; got {shown(spec)}.")
    spec = str(spec)
    if spec.startswith(ENSEMBLE):
        if weights is not None:
            raise ModelError("Weights belong to one model; name the members of an ensemble with their own.")
        return ensemble([load(name, None, preprocessing) for name in members_of(spec)]).eval()
    name, options = split_options(spec)
    prefix, _, rest = name.partition(":")
    own = Preprocessing()
    if is_hub(name):
        model, own = _HUBS[prefix](rest, pretrained=weights is None, **options)
    elif model_files.is_model_file(name):
        if options or weights is not None:
            raise ModelError(f"{name} holds a whole model: it takes neither options nor --weights.")
        model = model_files.load(name)
    else:
        model = function.build(name, options)
    if weights is not None:
        load_weights(model, weights)
    normalisation = own if replace(preprocessing, size=None).changes_nothing else preprocessing
    return replace(normalisation, size=preprocessing.size or own.size).before(model).eval()


def members_of(spec: str) -> list[str]:
    """The names of the models of ``ensemble:A,B,…``.

    Raises:
        ConfigError: fewer than two, or one is given twice.
    """
    names = split_names(spec.removeprefix(ENSEMBLE))
    if len(names) < 2 or not all(names):
        raise ConfigError(f"An ensemble is written {ENSEMBLE}A,B,… with two models or more; got {spec!r}.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"The ensemble names {twice[0]} twice; leave one out.")
    return names


def is_hub(spec: str) -> bool:
    """Whether a name is that of a model hub, such as ``timm:resnet18``."""
    prefix, colon, _ = spec.partition(":")
    return bool(colon) and prefix in _HUBS


def pretrained(spec: str) -> nn.Module:
    """A pretrained model of a hub, such as ``timm:resnet18``, without its preprocessing.

    Raises:
        ModelError: the hub has no such model, or cannot be reached.
        ConfigError: the hub's library is not installed.
    """
    name, options = split_options(spec)
    prefix, _, rest = name.partition(":")
    return _HUBS[prefix](rest, pretrained=True, **options)[0]


def title(spec: str, weights: str | Path | None = None) -> str:
    """A short name for results and folders, such as ``nets.build-w`` or ``hf.google-vit-base``."""
    if spec.startswith(ENSEMBLE):
        names = split_names(spec.removeprefix(ENSEMBLE))
        whole = "-".join(["ensemble", *map(title, names)])
        return whole if len(whole) <= _LONGEST else f"ensemble-of-{len(names)}-{sha256(spec.encode())[:8]}"
    stem = re.sub(
        r"[^\w.]+", "-", spec.replace(".py:", ".").replace(":", ".").removesuffix("/").rpartition("/")[2]
    ).strip("-.")
    return stem if weights is None else f"{stem}-{Path(weights).stem}"


__all__ = ["ENSEMBLE", "load", "load_model", "load_weights", "members_of", "title"]
