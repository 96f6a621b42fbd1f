"""Robust accuracy of any classifier in one call, at one ε or along a curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from isthmus.attacks.engine import inputs, probes
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.engine.early_stopping import until_narrow
from isthmus.attacks.engine.evaluation import evaluate
from isthmus.attacks.engine.run_options import Progress, RunOptions, bar_of, monotone
from isthmus.attacks.result import RobustResult
from isthmus.attacks.security_curve import SecurityCurve
from isthmus.attacks.suites import Suite, stages_of
from isthmus.attacks.threats import Threat, parse
from isthmus.core import execution
from isthmus.core.errors import ConfigError
from isthmus.core.process_pool import ProcessPool
from isthmus.core.progress import shown_progress


def robust_accuracy(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike | Dataset[Any] | DataLoader[Any],
    labels: Int[Tensor, " n"] | ArrayLike | None = None,
    threat: Threat | str | None = None,
    suite: Suite = "standard",
    batch_size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    *,
    progress: Progress | bool | None = None,
    options: RunOptions | None = None,
) -> RobustResult:
    """Attack a classifier and measure its robust accuracy, with an adversarial image for every broken example.

    Args:
        model: from images in [0, 1] to logits. Evaluated in eval mode; parameters, buffers, training flags, gradients
            and the global random state are left as they were. A true attribute ``takes_keys`` declares it random: its
            noise comes from ``forward(images, keys=...)``, fresh at every step. A random model, with keys or without,
            is broken by its average over fresh draws; see :mod:`isthmus.attacks.engine.averages`. With a warning, a
            stateful model is evaluated by fresh copies, and of probabilities the logarithms are attacked
            (:mod:`isthmus.attacks.engine.probes`).
        images: floating point in [0, 1], or 8-bit; a tensor, an array or a list, as are labels, targets and indices.
            Without labels, a pair of images and labels, a ``Dataset`` or a ``DataLoader``.
        labels: true classes, integers.
        threat: such as ``Linf(8 / 255)`` or ``"linf:8/255"``.
        suite: ``"standard"`` (AutoAttack's attacks and budgets), ``"fast"``, ``"ib"``, ``"rand"``; or attacks, run in
            order on the examples that are still robust: objects (``PGD(restarts=5)``), names (``"pgd"``, ``"pgd:100"``,
            ``"mypackage.mymodule:MyAttack"``) or mappings with options (``{"name": "pgd", "restarts": 5}``). A label of
            ``by_attack`` such as ``"apgd-dlr-t"`` names that attack with its default options; ``"clean"`` is ignored.
        batch_size: examples at a time; None to choose it from the free memory. The result depends on neither batch size
            nor the order of examples, beyond the model's own rounding.
        seed: with an example's index it determines all of that example's random starts and noise.
        jobs: processes on this machine that share the work.
        progress: True, the default, for a bar with the running attack and the time left, if stderr is a terminal or in
            a notebook; False for none; or a function that is called with a
            :class:`isthmus.attacks.engine.run_options.Snapshot`.
        options: everything else, such as targets, indices, a file to resume from and limits. Its ``batch_size``,
            ``jobs`` and ``progress`` are used if the arguments of that name are left at their defaults.

    Raises:
        ModelError: the model is no module, fails, returns something other than N×K logits (K ≥ 2), or only NaN.
        DataError: images or labels of a wrong type, shape or range, or none at all.
        ConfigError: an unknown attack or suite (with a suggestion), or options that do not fit.
        FileError: ``save_to`` cannot be written, or holds another evaluation.
        Interrupted: Ctrl-C; its ``result`` is what was found so far, a valid upper bound.
    """
    inputs.check_threat_given(threat, labels)
    chosen = _threat(parse(threat) if isinstance(threat, str) else threat)
    options = inputs.check_options(options, RunOptions)
    options = replace(
        options,
        batch_size=options.batch_size if batch_size is None else batch_size,
        jobs=options.jobs if jobs == 1 else jobs,
        progress=options.progress if progress is None else progress,
    )
    options = _checked(options)
    stages, examples = stages_of(suite, chosen.name), _examples(model, images, labels, seed, options)
    limit, half_width = options.max_queries, options.ci_half_width
    if limit is not None:  # copies, which may be of a service, count too
        options = replace(options, max_queries=limit - probes.most_queries(len(examples)))
    model = probes.adapted(model, examples.images, chosen)

    def one(part: Batch, options: RunOptions, progress: Progress | None) -> RobustResult:
        return evaluate(model, part, chosen, stages, seed=seed, options=replace(options, progress=progress))

    with sharing(options.jobs), shown_progress(options.progress, "robust accuracy", bar_of) as shown:
        report = monotone(shown)
        if half_width is not None:
            return until_narrow(one, examples, half_width, options, report)
        try:
            return one(examples, options, report)
        except BudgetExhausted:
            raise ConfigError(
                f"max_queries={limit} does not even cover the clean images, {len(examples)} of them, and the test "
                f"of the model, up to {probes.most_queries(len(examples))}; allow more, or attack fewer."
            ) from None


def expected_queries(suite: Suite, threat: Threat, classes: int) -> int:
    """About how many example-passes, forward and backward, a suite spends on an image that is robust to all of it.

    A stage that attacks only some of the robust images counts for that fraction.
    """
    total = 3.0  # the clean image twice, and the verification at the end
    for stage in stages_of(suite, threat.name):
        attack, runs = stage.attack, stage.attack.runs_in(threat, classes)
        given = (int(getattr(attack, name)) for name in ("queries", "steps", "samples") if hasattr(attack, name))
        draws = getattr(attack, "eot", 1) * getattr(attack, "binary_search_steps", 1)
        passes = 2 if getattr(attack, "gradient", True) else 1
        total += stage.share * (runs * next(given, 1) * draws * passes + runs)
    return math.ceil(total)


def curve(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike,
    labels: Int[Tensor, " n"] | ArrayLike,
    threats: Sequence[Threat],
    suite: Suite = "standard",
    seed: int = 0,
    options: RunOptions | None = None,
) -> SecurityCurve:
    """Robust accuracy at several ε of one norm: a tuple of results, ascending in ε, with ``plot`` and ``to_dataframe``.

    Adversarial images are reused in both directions. An example that is broken at ε is broken at every larger ε and
    costs no further pass (for a random model it is attacked again, for the count with confidence). An adversarial image
    found at a larger ε that lies inside a smaller ball counts there too.

    Args:
        threats: one norm, any number of ε, in any order; see :func:`isthmus.attacks.parse_grid`.
        options: as for :func:`robust_accuracy`, but without ``save_to``, ``max_queries`` and ``ci_half_width``.

    Other arguments and errors are those of :func:`robust_accuracy`.
    """
    grid = _ascending(threats)
    stages, options = stages_of(suite, grid[0].name), _checked(inputs.check_options(options, RunOptions))
    given = {name for name in ("save_to", "max_queries", "ci_half_width") if getattr(options, name) is not None}
    if given:
        raise ConfigError(f"A curve does not support {', '.join(sorted(given))}; evaluate each ε by robust_accuracy.")
    examples = _examples(model, images, labels, seed, options)
    model = probes.adapted(model, examples.images, grid[-1])

    def one(position: int, known: RobustResult | None, options: RunOptions) -> RobustResult:
        options = replace(options, progress=_part(options.callback, position, len(grid)))
        return evaluate(model, examples, grid[position], stages, seed=seed, options=options, known=known)

    results: list[RobustResult] = []
    with sharing(options.jobs), shown_progress(options.progress, "robust accuracy", bar_of) as progress:
        options = replace(options, progress=monotone(progress))
        for position in range(len(grid)):
            # a random model is attacked again at every ε: wrong on average is not yet wrong with confidence
            known = results[-1] if results and not results[-1].random else None
            results.append(one(position, known, options))
            if results[-1].random and not results[0].random:  # detected late: one rule for all
                results = _again(results, one, replace(options, random=True))
    for position in range(1, len(grid)) if results[0].random else ():
        results[position] = results[position].absorb(results[position - 1])
    for position in reversed(range(len(grid) - 1)):
        results[position] = results[position].absorb(results[position + 1])
    return SecurityCurve(results)


def _again(
    results: list[RobustResult],
    one: Callable[[int, RobustResult | None, RunOptions], RobustResult],
    options: RunOptions,
) -> list[RobustResult]:
    """The smaller ε of a curve once more, for a model that is random after all; with the passes of both times."""
    smaller = [one(position, None, options).after(lost) for position, lost in enumerate(results[:-1])]
    return [*smaller, results[-1]]


def _examples(model: object, images: Any, labels: Any, seed: int, options: RunOptions) -> Batch:
    inputs.check_model(model)
    return inputs.examples(images, labels, targets=options.targets, seed=seed, indices=options.indices)


@contextmanager
def sharing(jobs: int) -> Iterator[None]:
    """Inside, this many processes share every attack; with one job, the executor in use does, if there is one."""
    if jobs == 1:
        yield
        return
    with ProcessPool(jobs) as pool, execution.using(pool):
        yield


def _checked(options: RunOptions) -> RunOptions:
    """The options, or a ConfigError if a number is out of range."""
    for name in ("batch_size", "jobs", "max_queries"):
        if getattr(options, name) is not None:
            inputs.check_whole(getattr(options, name), name)
    if options.optimized_model is not None:
        inputs.check_model(options.optimized_model)
    if options.ci_half_width is not None:
        inputs.check_share(options.ci_half_width, "ci_half_width")
        if options.max_queries is not None:
            raise ConfigError("max_queries and ci_half_width both end an evaluation; give one of them.")
    return options


def _threat(threat: object) -> Threat:
    if not isinstance(threat, Threat):
        raise ConfigError(f"A threat is an object such as Linf(8 / 255), or text such as linf:8/255; got {threat!r}.")
    return threat


def _ascending(threats: Sequence[Threat]) -> list[Threat]:
    if not threats or not all(isinstance(threat, Threat) for threat in threats):
        raise ConfigError(f"A threat is an object such as Linf(8 / 255), and at least one is needed; got {threats!r}.")
    if len({type(threat) for threat in threats}) > 1:
        raise ConfigError(f"A curve has one norm; got {', '.join(str(threat) for threat in threats)}.")
    return sorted(set(threats), key=lambda threat: threat.eps)


def _part(progress: Progress | None, position: int, parts: int) -> Progress | None:
    if progress is None:
        return None
    return lambda at: progress(at._replace(done=position * at.total + at.done, total=parts * at.total))
