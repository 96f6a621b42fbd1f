"""Robust accuracy of any classifier in one call, at one ε or along a curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus.attacks.attack import Attack
from isthmus.attacks.engine import inputs, memory
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import BudgetExhausted
from isthmus.attacks.engine.early_stopping import until_narrow
from isthmus.attacks.engine.evaluate import evaluate
from isthmus.attacks.engine.evaluation import Progress, RunOptions, monotone
from isthmus.attacks.engine.progress import line
from isthmus.attacks.result import CLEAN, RobustResult
from isthmus.attacks.suites import IN_L1, LABELS, STAGES, SUITES
from isthmus.attacks.threats import Threat, parse
from isthmus.core import execution, registry
from isthmus.core.config import Component, component
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.process_pool import ProcessPool

Suite = str | Mapping[str, Any] | Component | Attack | Iterable[str | Mapping[str, Any] | Component | Attack]


def robust_accuracy(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike,
    labels: Int[Tensor, " n"] | ArrayLike,
    threat: Threat | str,
    suite: Suite = "standard",
    batch_size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    *,
    targets: Int[Tensor, " n"] | ArrayLike | None = None,
    indices: Int[Tensor, " n"] | ArrayLike | None = None,
    until: float | None = None,
    bf16: bool = False,
    save_to: str | Path | None = None,
    progress: Progress | bool | None = None,
    verify: bool = True,
    max_queries: int | None = None,
) -> RobustResult:
    """Attack a classifier and say how much of its accuracy is left, with a witness for every broken example.

    Args:
        model: from images in [0, 1] to logits. Judged in eval mode; parameters, buffers, training flags,
            gradients and the global random state are afterwards as they were. With a true attribute
            ``takes_keys`` it is random: its noise comes from ``forward(images, keys=...)``, fresh at every step. A
            random model, with keys or without, is broken by its average over fresh draws; see
            :mod:`isthmus.attacks.engine.averages`. A model that remembers what it was asked is judged, with a warning,
            as a fresh copy would answer (:mod:`isthmus.attacks.engine.memory`).
        images: floating point, in [0, 1]; as labels, targets and indices, a tensor, an array or a list.
        labels: true classes, integers.
        threat: such as ``Linf(8 / 255)`` or ``"linf:8/255"``.
        suite: ``"standard"`` (AutoAttack's attacks and budgets), ``"fast"``, ``"ib"``, ``"rand"``; or attacks, run in
            order on what the ones before left: names (``"pgd"``, ``"pgd:100"``), mappings with options
            (``{"name": "pgd", "restarts": 5}``), configs, or one of these. A label of ``by_attack`` such as
            ``"apgd-dlr-t"`` names that attack with its default options; ``"clean"`` is passed over.
        batch_size: examples at a time; None to find it from memory. The result does not depend on it, nor on the order
            of examples, beyond what the model's own arithmetic does.
        seed: with an example's index it fixes all of that example's random starts and noise.
        jobs: processes on this machine that share the work.
        targets: classes to reach, for a targeted evaluation; see :class:`RobustResult`.
        indices: positions of the images in their data set, for seeding; 0..N−1 by default.
        until: evaluate examples in random order, and stop where the 95% interval of robust accuracy is no wider than
            ± this; the result is of the examples evaluated. None for all.
        bf16: gradients in bfloat16 (faster on hardware that has it); success is judged in float32 all the same.
        save_to: file that keeps the evaluation as it goes. Called again, an interrupted or killed one goes on from
            there, and one that is over gives its result at once. Keep the result itself with
            :meth:`RobustResult.save`; then :func:`isthmus.attacks.engine.early_stopping.forget` deletes this.
        progress: True for a line on stderr; or called with a :class:`isthmus.attacks.engine.evaluation.Snapshot` as it
            goes.
        verify: check every adversarial example on a further forward pass at the end. One that fails counts as robust,
            and the result's ``unconfirmed`` and ``flags`` say so. Of a random model, read its average on fresh draws;
            without that only the count of what is wrong with confidence is known.
        max_queries: example-passes that may be spent in all, forward and backward, such as what a service answers;
            up to 80 of them are kept for the copies that are tested for memory.
            The evaluation ends before it would exceed them (with several jobs, by what they are at), and the result is
            an upper bound, not ``complete`` but ``exhausted``. None for no limit; not together with ``until``.

    Raises:
        ModelError: the model is no module, fails, returns something other than N×K logits (K ≥ 2), or only
            NaN.
        DataError: images or labels of a wrong type, shape or range, or none at all.
        ConfigError: an unknown attack or suite (with a suggestion), or options that do not fit it.
        FileError: ``save_to`` cannot be written, or holds another evaluation.
        Interrupted: Ctrl-C; its ``result`` is what was found so far, a valid upper bound.
    """
    chosen = _threat(parse(threat) if isinstance(threat, str) else threat)
    attacks, examples = ready(suite, chosen.name), _examples(model, images, labels, targets, seed, indices)
    options, told = _means(batch_size, bf16, save_to, verify), monotone(teller(progress))
    if max_queries is not None:
        asked = memory.most_queries(len(examples))  # of copies, which may be of a service
        options = replace(options, passes=inputs.check_whole(max_queries, "max_queries") - asked)
        if until is not None:
            raise ConfigError("max_queries and until both end an evaluation; give one of them.")
    model = memory.without(model, examples.images, chosen)

    def one(part: Batch, options: RunOptions, progress: Progress | None) -> RobustResult:
        return evaluate(model, part, chosen, attacks, seed=seed, options=options, progress=progress)

    with sharing(jobs):
        if until is None:
            try:
                return one(examples, options, told)
            except BudgetExhausted:
                raise ConfigError(
                    f"max_queries={max_queries} does not even cover the clean images, {len(examples)} of them, and the "
                    f"test for memory, up to {memory.most_queries(len(examples))}; allow more, or attack fewer."
                ) from None
        return until_narrow(one, examples, inputs.check_share(until, "until"), options, told)


def expected_queries(suite: Suite, threat: Threat, classes: int) -> int:
    """About how many example-passes a suite spends on an image that withstands all of it, forward and backward."""
    total = 3  # the clean image twice, and the check at the end
    for attack in ready(suite, threat.name):
        config, runs = attack.config, attack.runs(threat, classes)
        search = None if attack.search is None else attack.search(config, threat, classes)
        queries = getattr(config, "queries", 0) if search is not None and not search.gradient else 0
        given = (int(getattr(config, name)) for name in ("steps", "samples", "long") if hasattr(config, name))
        steps = queries or next(given, 1)
        draws = getattr(config, "eot", 1) * getattr(config, "binary_search_steps", 1)
        passes = 2 if search is None or search.gradient else 1
        total += runs * steps * draws * passes + runs
    return total


def curve(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike,
    labels: Int[Tensor, " n"] | ArrayLike,
    threats: Sequence[Threat],
    suite: Suite = "standard",
    batch_size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    *,
    targets: Int[Tensor, " n"] | ArrayLike | None = None,
    indices: Int[Tensor, " n"] | ArrayLike | None = None,
    bf16: bool = False,
    progress: Progress | bool | None = None,
    verify: bool = True,
) -> tuple[RobustResult, ...]:
    """Robust accuracy at several ε of one norm, ascending: a security curve.

    Adversarial examples are reused both ways. What is broken at ε stays broken at every larger ε and costs no further
    pass (a random model's examples are attacked again, for the count with confidence); an adversarial example found at
    a larger ε that happens to lie inside a smaller ball counts there too.

    Args:
        threats: one norm, any number of ε, in any order; see :func:`isthmus.attacks.parse_grid`.

    Other arguments and errors are those of :func:`robust_accuracy`.
    """
    grid = _ascending(threats)
    attacks = ready(suite, grid[0].name)
    examples = _examples(model, images, labels, targets, seed, indices)
    options, told = _means(batch_size, bf16, None, verify), monotone(teller(progress))
    model = memory.without(model, examples.images, grid[-1])

    def one(position: int, known: RobustResult | None, options: RunOptions) -> RobustResult:
        tell = _part(told, position, len(grid))
        return evaluate(
            model, examples, grid[position], attacks, seed=seed, options=options, progress=tell, known=known
        )

    results: list[RobustResult] = []
    with sharing(jobs):
        for position in range(len(grid)):
            # of a random model every ε is attacked anew: what is wrong on average is not yet wrong with confidence
            known = results[-1] if results and not results[-1].random else None
            results.append(one(position, known, options))
            if results[-1].random and not results[0].random:  # found out late: all are judged by one rule
                results = _again(results, one, replace(options, random=True))
    for position in range(1, len(grid)) if results[0].random else ():
        results[position] = results[position].absorb(results[position - 1])
    for position in reversed(range(len(grid) - 1)):
        results[position] = results[position].absorb(results[position + 1])
    return tuple(results)


def _again(
    results: list[RobustResult],
    one: Callable[[int, RobustResult | None, RunOptions], RobustResult],
    options: RunOptions,
) -> list[RobustResult]:
    """The smaller ε of a curve once more, for a model that is random after all; with the passes of both times."""
    smaller = [one(position, None, options).after(lost) for position, lost in enumerate(results[:-1])]
    return [*smaller, results[-1]]


def ready(suite: Suite, norm: str = "linf") -> tuple[Attack, ...]:
    """Resolve a suite to attacks that can run; the second attack of a label is called ``pgd-2``, and so on.

    Args:
        norm: of the threat; AutoAttack's budgets in ℓ1 are others than elsewhere.

    Raises:
        ConfigError: no attack, an unknown one (with a suggestion), or options that do not fit.
    """
    if isinstance(suite, str):
        suite = IN_L1.get(suite, suite) if norm == "l1" else suite
    given: Sequence[Any]
    if isinstance(suite, str):
        given = SUITES.get(suite, (suite,))
    elif isinstance(suite, Component | Attack) or (isinstance(suite, Mapping) and "name" in suite):
        given = (suite,)
    elif isinstance(suite, Iterable):
        given = list(suite)
    else:
        raise ConfigError(f"A suite is a name such as 'standard', or a list of attacks; got {suite!r}.")
    if not given or given == [CLEAN]:
        raise ConfigError(f"A suite needs at least one attack. There is: {', '.join(_names())}.")
    attacks: list[Attack] = []
    seen = Counter([CLEAN])
    for attack in (each for item in given for each in _attacks(item)):
        seen[attack.label] += 1
        label = attack.label if seen[attack.label] == 1 else f"{attack.label}-{seen[attack.label]}"
        attacks.append(replace(attack, label=label))
    return tuple(attacks)


def _attacks(item: Any) -> Sequence[Attack]:
    if isinstance(item, Attack):
        return [item]
    if isinstance(item, str):
        if item == CLEAN:  # the label of what is evaluated always
            return []
        if item in SUITES:
            return ready(item)
        name, colon, argument = item.partition(":")
        if name in LABELS:
            item = {**LABELS[name], "steps": argument} if colon else LABELS[name]
        elif name not in registry.names("attacks"):
            raise ConfigError(_unknown(name))
    config = component("attacks", item)
    module = registry.find("attacks", config.name)
    if hasattr(module, "stages"):
        stages: Sequence[Attack] = module.stages(config)
        return stages
    label = getattr(config, "label", config.name)
    return [Attack(label, config, getattr(module, "perturb", None), getattr(module, "search", None))]


def _unknown(name: str) -> str:
    base, _, number = name.rpartition("-")
    if name in STAGES:
        return f"{name!r} is a stage of the suite 'fast', which depends on the stages before it; give 'fast'."
    if number.isdigit() and base in _names():
        return (
            f"{name!r} is the label of attack number {number} called {base!r} in its suite, whose options a name does "
            f"not tell; give a mapping such as {{'name': {base!r}, ...}}."
        )
    return unknown("attack or suite", name, _names())


def _names() -> list[str]:
    return sorted({*SUITES, *LABELS, *registry.names("attacks")})


def _examples(model: object, images: Any, labels: Any, targets: Any, seed: int, indices: Any) -> Batch:
    inputs.check_model(model)
    return inputs.examples(images, labels, targets=targets, seed=seed, indices=indices)


def _means(batch_size: int | None, bf16: bool, save_to: str | Path | None, verify: bool) -> RunOptions:
    size = None if batch_size is None else inputs.check_whole(batch_size, "batch_size")
    path = None if save_to is None else Path(save_to)
    return RunOptions(size, bf16, path, verify=verify)


@contextmanager
def sharing(jobs: int) -> Iterator[None]:
    """Inside, so many processes share every attack; with one job, the executor in use does, if there is one."""
    if inputs.check_whole(jobs, "jobs") == 1:
        yield
        return
    with ProcessPool(jobs) as pool, execution.using(pool):
        yield


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


def teller(progress: Progress | bool | None) -> Progress | None:
    """Who is told how far an evaluation is: nobody for False, a line on stderr for True."""
    if not isinstance(progress, bool):
        return progress
    show = line()
    return (lambda at: show(f"{at.attack}, {at.robust} of {at.n} robust", at.done, at.total)) if progress else None


def _part(progress: Progress | None, position: int, parts: int) -> Progress | None:
    if progress is None:
        return None
    return lambda at: progress(at._replace(done=position * at.total + at.done, total=parts * at.total))
