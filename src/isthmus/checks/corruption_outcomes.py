"""The measuring part of the corruptions check: which images a classifier gets right under which corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.context import answer
from isthmus.checks.views import MEAN, STOCHASTIC, correct, finite, labels
from isthmus.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isthmus.checks.context import Context

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """What was measured.

    Attributes:
        right: mode -> corruption -> bool[severities, n].
        clean: mode -> bool[n] on the same images before they were corrupted; empty where these are not at hand.
        missing: mode -> how many answers had logits that are NaN or infinite; they count as wrong.
        skipped: corruption -> why it was not measured.
        rounded: whether the images were rounded to bytes first.
        gallery: uint8[corruptions, h, w, c], the first image under each corruption at the last severity.
    """

    right: dict[str, dict[str, Bools]]
    clean: dict[str, Bools] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rounded: bool = False
    gallery: NDArray[np.uint8] | None = None


def modes(context: Context) -> dict[str, nn.Module]:
    """The classifier in mean mode, and in stochastic mode where there is one."""
    found = {MEAN: context.model}
    if context.stochastic is not None:
        found[STOCHASTIC] = context.stochastic
    return found


def applied(
    context: Context, parameters: str, corruptions: Sequence[str], severities: Sequence[int], frost: str | None
) -> Outcomes:
    """Corrupt the audited images here, batch by batch, and ask all modes about each.

    Raises:
        DataError: ``frost`` is no folder with the photographs.
    """
    import torch

    pixels = context.images * 255.0
    levels = pixels.round()
    photographs, skipped = _needs(parameters, corruptions, len(context.images[0]), frost)
    asked = [name for name in corruptions if name not in skipped]
    if not asked:
        raise DataError(f"No corruption is left to measure: {' '.join(skipped.values())}")
    models, truth = modes(context), labels(context)
    answers = {mode: np.zeros((len(asked), len(severities), len(truth)), dtype=bool) for mode in models}
    missing, gallery = dict.fromkeys(models, 0), []
    with torch.no_grad():
        for number, name in enumerate(asked):
            for place, severity in enumerate(severities):
                settings = (name, severity, parameters, photographs)
                first = _ask(context, levels.byte(), settings, models, answers, (number, place), missing)
                context.progress(number * len(severities) + place + 1, len(asked) * len(severities))
            gallery.append(first)
    clean_logits = {mode: context.logits if mode == MEAN else context.stochastic_logits for mode in models}
    return Outcomes(
        right={mode: dict(zip(asked, rows, strict=True)) for mode, rows in answers.items()},
        clean={mode: _right(logits, truth)[0] for mode, logits in clean_logits.items()},
        missing=missing,
        skipped=skipped,
        rounded=bool((pixels - levels).abs().max() > 1e-3),
        gallery=np.stack(gallery),
    )


def _ask(
    context: Context,
    images: Tensor,
    settings: tuple[str, int, str, Any],
    models: Mapping[str, nn.Module],
    answers: Mapping[str, Bools],
    place: tuple[int, int],
    missing: dict[str, int],
) -> NDArray[np.uint8]:
    """One corruption at one severity; gives the first image, for show."""
    from isthmus.data.corruptions.apply import corrupt
    from isthmus.data.images import as_float

    truth = labels(context)
    name, severity, parameters, photographs = settings
    shown: NDArray[np.uint8] | None = None
    for first in range(0, len(images), context.batch_size):
        rows = slice(first, first + context.batch_size)
        keys = context.keys[rows]
        corrupted = corrupt(images[rows], name, severity, keys, parameters, photographs)
        if shown is None:
            shown = corrupted[0].permute(1, 2, 0).cpu().numpy()
        for mode, model in models.items():
            # a stochastic mode draws an example's noise from its key, so that no answer depends on the batch
            right, lost = _right(answer(model, as_float(corrupted), keys), truth[rows])
            answers[mode][(*place, rows)] = right
            missing[mode] += lost
    assert shown is not None
    return shown


def _right(logits: Tensor, truth: NDArray[np.int64]) -> tuple[Bools, int]:
    values = logits.numpy()
    return correct(values, truth), int((~finite(values)).sum())


def _needs(
    parameters: str, corruptions: Sequence[str], channels: int, frost: str | None
) -> tuple[tuple[Tensor, ...] | None, dict[str, str]]:
    """Frost's photographs where they are needed and there, and what cannot be done for want of files or Pillow."""
    from isthmus.data.corruptions import weather
    from isthmus.data.decode import need_pillow

    skipped = {}
    try:
        need_pillow()
    except DataError as error:
        skipped = {name: str(error) for name in ("frost", "jpeg_compression") if name in corruptions}
    if "frost" not in corruptions or "frost" in skipped:
        return None, skipped
    folder = frost or weather.frost_folder()
    if folder is None:
        skipped["frost"] = (
            "Frost is added from photographs that are not ours to ship; name the folder that holds them in the option "
            f"frost. {weather.GET}"
        )
        return None, skipped
    return weather.load_frost(folder, channels, shrunk=parameters == "cifar10_c"), skipped


def published(
    context: Context, benchmark: Mapping[str, Any], classes: Sequence[str] | None, corruptions: Sequence[str]
) -> Outcomes:
    """Ask all modes about a published set of corrupted images, at its five severities.

    Raises:
        ModelError, DataError: see :func:`isthmus.checks.shift_outcomes.right_under_corruptions`.
    """
    from isthmus.checks.shift_outcomes import right_under_corruptions

    models = modes(context)
    passes = 5 * len(corruptions)
    right = {}
    for number, (mode, model) in enumerate(models.items()):

        def progress(done: int, _total: int, before: int = number * passes) -> None:
            context.progress(before + done, passes * len(models))

        right[mode] = right_under_corruptions(
            model, benchmark, classes, corruptions, context.batch_size, context.seed, progress
        )
    return Outcomes(right)
