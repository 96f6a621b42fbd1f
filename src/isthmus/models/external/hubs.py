"""Models of timm, torchvision, Hugging Face and RobustBench, with the preprocessing that they come with."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from isthmus.core.errors import ConfigError, ModelError, brief
from isthmus.models.preprocessing import Preprocessing, preprocessing_of


def timm(name: str, pretrained: bool, **options: Any) -> tuple[nn.Module, Preprocessing]:
    """A model of timm, with its own size and normalisation."""
    library = _library("timm", "vision")
    with _reported("timm", name):
        model = library.create_model(name, pretrained=pretrained, **options).eval()
        facts = importlib.import_module("timm.data").resolve_model_data_config(model)
    return model, Preprocessing(tuple(facts["mean"]), tuple(facts["std"]), tuple(facts["input_size"][1:]))


def torchvision(name: str, pretrained: bool, **options: Any) -> tuple[nn.Module, Preprocessing]:
    """A model of torchvision with its default weights, or without weights; normalised as those weights expect."""
    models = _library("torchvision", "vision").models
    with _reported("torchvision", name):
        default = models.get_model_weights(name).DEFAULT
        model = models.get_model(name, weights=default if pretrained else None, **options).eval()
    facts = default.transforms()
    sides = facts.crop_size if isinstance(facts.crop_size, list | tuple) else [facts.crop_size]
    return model, preprocessing_of(list(facts.mean), list(facts.std), (sides[0], sides[-1]))


def hugging_face(name: str, pretrained: bool, **options: Any) -> tuple[nn.Module, Preprocessing]:
    """An image classifier of the Hugging Face hub or a local folder; safetensors only, and no remote code."""
    library = _library("transformers", "hf")
    with _reported("Hugging Face", name):
        if pretrained:
            model = library.AutoModelForImageClassification.from_pretrained(name, use_safetensors=True, **options)
        else:
            config = library.AutoConfig.from_pretrained(name, **options)
            model = library.AutoModelForImageClassification.from_config(config)
        facts = _image_processor(name)
    return model.eval(), facts


def _image_processor(name: str) -> Preprocessing:
    """What the repository's image processor does to an image; nothing if the repository has none."""
    mixin = importlib.import_module("transformers.image_processing_base").ImageProcessingMixin
    try:
        facts, _ = mixin.get_image_processor_dict(name)
    except OSError:
        return Preprocessing()
    mean, std = (0.0,), (1.0,)
    scale = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1.0
    # the processor multiplies 8-bit pixels by the scale; ours are in [0, 1]
    if facts.get("do_normalize", True) and facts.get("image_mean") and facts.get("image_std"):
        mean, std = tuple(facts["image_mean"]), tuple(facts["image_std"])
    factor = 255 * scale
    return Preprocessing(
        tuple(value / factor for value in mean), tuple(value / factor for value in std), _processor_size(facts)
    )


def _processor_size(facts: dict[str, Any]) -> tuple[int, int] | None:
    given = facts.get("crop_size") if facts.get("do_center_crop") else None
    given = given or (facts.get("size") if facts.get("do_resize", True) else None)
    if given is None:
        return None
    if isinstance(given, int):
        return given, given
    if "height" in given:
        return int(given["height"]), int(given["width"])
    side = int(given.get("shortest_edge") or next(iter(given.values())))
    return side, side


def robustbench(name: str, pretrained: bool, **options: Any) -> tuple[nn.Module, Preprocessing]:
    """A model of RobustBench's zoo, ``NAME``, ``NAME/DATASET`` or ``NAME/DATASET/THREAT``; it normalises by itself."""
    if not pretrained:
        raise ConfigError("A model of RobustBench comes with its weights; leave out --weights.")
    label, _, rest = name.partition("/")
    dataset, _, threat = rest.partition("/")
    utils = _library("robustbench.utils", "robustbench")
    with _reported("RobustBench", name):
        model = utils.load_model(label, dataset=dataset or "cifar10", threat_model=threat or "Linf", **options)
    return model.eval(), Preprocessing()


def _library(module: str, extra: str) -> Any:
    """A library that only some models need.

    Raises:
        ModelError: it is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise ModelError(f"{package} cannot be imported: {brief(error)}.") from error
        command = "robustbench" if extra == "robustbench" else f"'isthmus[{extra}]'"
        raise ModelError(f"This model needs {package}: pip install {command}.") from None


@contextmanager
def _reported(hub: str, name: str) -> Iterator[None]:
    """Errors of a library as a ModelError."""
    try:
        yield
    except (ConfigError, ModelError):
        raise
    except Exception as error:  # downloads and constructors raise anything
        raise ModelError(f"{hub} has no model {name!r} that loads: {brief(error)} ({type(error).__name__}).") from error
