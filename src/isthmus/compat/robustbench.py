"""RobustBench's ``benchmark`` (Croce et al. 2021, github.com/RobustBench/robustbench), and its JSON of a model.

The images are the first of the test set, and the attacks are those of AutoAttack's version ``standard``, as there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import isthmus
from isthmus.attacks.engine import inputs
from isthmus.attacks.result import RobustResult
from isthmus.checks.shift import correct_predictions
from isthmus.compat.autoattack import AutoAttack
from isthmus.core import files
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, FileError, unknown
from isthmus.data.images import ImageData, as_float
from isthmus.data.loading import load as load_data
from isthmus.data.shift.shifted import load as load_shifted
from isthmus.metrics import CORRUPTIONS, SEVERITIES

log = logging.getLogger(__name__)

CORRUPTED = ("cifar10", "cifar100")
"""Data sets whose corrupted test images are published."""

THREAT_MODELS = ("Linf", "L2", "corruptions")
FIELDS = (
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
    *("eps", "clean_acc", "reported", "corruptions_acc", "corruptions_acc_3d", "corruptions_mce", "corruptions_mce_3d"),
    *("autoattack_acc", "footnote"),
)
"""Keys of RobustBench's JSON of a model; accuracies are text in percent, and what is not known is null."""


class Accuracies(tuple[float, float]):
    """Clean and robust accuracy, fractions: ``clean, robust = benchmark(...)``.

    Attributes:
        result: the evaluation behind them, with interval, passes and warnings; None under corruptions.
    """

    result: RobustResult | None

    def __new__(cls, clean: float, robust: float, result: RobustResult | None) -> Accuracies:
        """The two accuracies, with the result beside them."""
        made = super().__new__(cls, (clean, robust))
        made.result = result
        return made


def benchmark(  # RobustBench's own signature, hence more arguments than elsewhere
    model: nn.Module,
    n_examples: int = 10_000,
    dataset: str | Mapping[str, Any] | Component = "cifar10",
    threat_model: str = "Linf",
    to_disk: bool = False,
    model_name: str | None = None,
    data_dir: str | Path | None = None,
    corruptions_data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 32,
    eps: float | None = None,
    log_path: str | Path | None = None,
    preprocessing: object = None,
    aa_state_path: str | Path | None = None,
) -> Accuracies:
    """Drop-in for ``robustbench.benchmark``: clean and robust accuracy of one model.

    Args:
        model: from images in [0, 1] to logits. Evaluated in eval mode, with a warning if it is in train mode.
        n_examples: the first test images, at most all.
        dataset: "cifar10", or any other data set of isthmus but ImageNet.
        threat_model: "Linf", "L2", or "corruptions": the mean accuracy on CIFAR-10-C or CIFAR-100-C over all
            corruptions and severities.
        to_disk: write ``model_info/DATASET/THREAT/MODEL_NAME.json`` below the current folder, with RobustBench's keys
            (:data:`FIELDS`); values of an existing file are kept unless they are measured here. One more key,
            ``isthmus``, has n, interval, passes, seed, version and what readers must know of the data.
        model_name: of that file.
        data_dir: None; isthmus finds data by ``ISTHMUS_DATA`` or on the Hugging Face hub.
        corruptions_data_dir: folder of CIFAR-10-C or CIFAR-100-C, unless it is in ``ISTHMUS_DATA``.
        device: the model is moved there; None leaves it where it is.
        batch_size: images in a batch.
        eps: radius for "Linf" and "L2".
        log_path: a file that receives AutoAttack's lines.
        preprocessing: None; it belongs inside the model.
        aa_state_path: a file to resume from.

    Raises:
        ConfigError: an unknown threat model or data set, or an argument that cannot be honoured.
        DataError, ModelError, FileError: see :func:`isthmus.robust_accuracy`.
    """
    inputs.check_model(model)
    dataset, threat_model = getattr(dataset, "value", dataset), getattr(threat_model, "value", threat_model)
    _check(dataset, threat_model, eps, data_dir, preprocessing)
    if to_disk and not model_name:
        raise ConfigError("to_disk=True needs a model_name, after which the file is named.")
    if model.training:
        warnings.warn("The model is in train mode; isthmus evaluates it in eval mode.", stacklevel=2)
    if device is not None:
        model = model.to(device)
    data = load_data(dataset)
    if data.note:
        log.warning("%s: %s", data.name, data.note)
    x, y = _first(data, inputs.check_whole(n_examples, "n_examples"))
    adversary = AutoAttack(model, "L2" if threat_model == "L2" else "Linf", eps or 0, verbose=True, log_path=log_path)
    clean = adversary.clean_accuracy(x, y, batch_size)
    if threat_model == "corruptions":
        robust = _under_corruptions(model, f"{dataset}_c", corruptions_data_dir, len(x), batch_size)
    else:
        x_adv = adversary.run_standard_evaluation(x, y, batch_size, state_path=aa_state_path)
        result = adversary.result
        robust = adversary.clean_accuracy(x_adv, y, batch_size) if result is None else result.accuracy
    found = Accuracies(clean, robust, adversary.result)
    if to_disk:
        _write(found, data, threat_model, str(model_name), adversary, len(x))
    return found


def _check(dataset: object, threat_model: object, eps: object, data_dir: object, preprocessing: object) -> None:
    """Refuse what RobustBench accepts and isthmus does not."""
    if threat_model == "corruptions_3d":
        raise ConfigError("threat_model='corruptions_3d': isthmus has the 15 common corruptions; give 'corruptions'.")
    if threat_model not in THREAT_MODELS:
        raise ConfigError(unknown("threat model", threat_model, THREAT_MODELS))
    if threat_model != "corruptions" and eps is None:
        raise ConfigError(
            f"threat_model={threat_model!r} needs eps, such as {'0.5' if threat_model == 'L2' else '8 / 255'}."
        )
    if threat_model == "corruptions" and (eps is not None or dataset not in CORRUPTED):
        raise ConfigError(
            "threat_model='corruptions' takes dataset='cifar10' or 'cifar100' and no eps. For other data, run the "
            "check: isthmus.audit(model, images, labels, threat, ['corruptions'])."
        )
    if dataset == "imagenet":
        raise ConfigError(
            "RobustBench evaluates ImageNet on 5,000 fixed images of its own, which isthmus does not have. Load them "
            "by robustbench.data.load_imagenet, and call isthmus.robust_accuracy(model, images, labels, threat)."
        )
    if data_dir is not None:
        raise ConfigError(
            f"data_dir={str(data_dir)!r}: leave it out. isthmus takes data from the Hugging Face hub, or from the "
            "mirror that the environment variable ISTHMUS_DATA names."
        )
    if preprocessing is not None:
        raise ConfigError("preprocessing belongs inside the model; resize and crop images before robust_accuracy.")


def _first(data: ImageData, count: int) -> tuple[Tensor, Tensor]:
    """The first test images in [0, 1], in the order of the data set, and their labels."""
    chosen = data.test.select(torch.arange(min(count, len(data.test))))
    return as_float(chosen.images), chosen.labels


def _under_corruptions(model: nn.Module, name: str, folder: str | Path | None, count: int, batch_size: int) -> float:
    """Mean accuracy on the first images of a set of corrupted images, over corruptions and severities."""
    accuracies = []
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            options = {"name": name, "corruption": corruption, "severity": severity}
            whole = load_shifted(options if folder is None else {**options, "path": str(folder)})
            rows = torch.arange(min(count, len(whole)))
            part = replace(whole, split=whole.split.select(rows), positions=whole.positions[rows])
            accuracies.append(float(correct_predictions(model, part, batch_size).double().mean()))
    return sum(accuracies) / len(accuracies)


def _write(
    found: Accuracies, data: ImageData, threat_model: str, model_name: str, adversary: AutoAttack, count: int
) -> None:
    """Write RobustBench's JSON of a model, or update it."""
    path = Path("model_info") / data.name / threat_model / f"{model_name}.json"
    known: dict[str, Any] = dict.fromkeys(FIELDS)
    if files.exists(path):
        read = files.read_json(path)
        if not isinstance(read, dict):
            raise FileError(f"{path} is not the JSON of a model, which is an object; move it away.")
        known = read
    kind = "corruptions_acc" if threat_model == "corruptions" else "autoattack_acc"
    clean, robust = (str(round(100 * accuracy, 2)) for accuracy in found)
    eps = str(adversary.threat).partition(":")[2] if adversary.threat else None
    measured = {"dataset": data.name, "eps": eps, "clean_acc": clean, kind: robust}
    files.write_json(path, {**known, **measured, "isthmus": _facts(found.result, data, count)}, sealed=False)


def _facts(result: RobustResult | None, data: ImageData, count: int) -> dict[str, Any]:
    """What RobustBench's keys do not hold of the measurement."""
    facts: dict[str, Any] = {"version": isthmus.__version__, "n_examples": count, "data_note": data.note}
    if result is None:
        return facts
    return facts | {
        "interval_95": [result.interval.low, result.interval.high],
        "by_attack": result.by_attack,
        "forward_passes": result.forward_passes,
        "backward_passes": result.backward_passes,
        "seed": result.seed,
        "warnings": list(result.warnings),
    }
