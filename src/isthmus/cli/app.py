"""The command line: verbs only. Errors a user can mend are one sentence and exit code 2; --debug adds the traceback."""

from __future__ import annotations

import io
import logging
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from isthmus.core.errors import ConfigError, IsthmusError, brief, foreign_code, out_of_memory, printable, unknown

if TYPE_CHECKING:
    from isthmus.attacks.result import RobustResult
    from isthmus.core.ray_cluster import Cluster
    from isthmus.report.loading import AuditedModel

app = typer.Typer(
    name="isthmus",
    help="Train information-bottleneck classifiers, and audit any PyTorch classifier for robust generalisation.",
    epilog="Any verb takes --debug: show the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
_MOST = 2**31 - 1  # of whatever is counted; and a seed, as in a recipe
_NO_MEMORY = (
    "There is not enough memory for this. What was done is kept, and the same command goes on from there where other "
    "programs had the memory; otherwise ask for fewer images (--n), or fewer processes (--jobs)."
)
EXECUTORS = ("local", "ray")
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
RunFolder = Annotated[Path | None, typer.Argument(help="Run folder of a trained model.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="A model of your own: package.module:function.", show_default=False)]
Weights = Annotated[Path | None, typer.Option(help="Its weights, a safetensors file.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or imagenet:PATH, or with options as in a "
        "recipe, '{name: folder, path: PATH, channels: 1}'; the run's own if not given."
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=_MOST, help="Seed of every random choice.")]
Executor = Annotated[str, typer.Option(help="Who works: local, or ray, for workers on a cluster.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster: auto, or ray://HEAD:10001.", show_default="RAY_ADDRESS, or this machine alone"
    ),
]
WorkerCpus = Annotated[int, typer.Option(min=1, max=_MOST, help="Processors of each worker on the cluster.")]
WorkerGpus = Annotated[float, typer.Option(min=0, help="GPUs of each worker on the cluster; 0.5 shares one.")]


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file (see examples/recipes).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the recipe's: objective.rho=2 seed=3.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME where not given.", show_default=False)] = None,
    quiet: Quiet = False,
) -> None:
    """Train a recipe, or go on where an interrupted run of it stopped.

    Ends with exit code 2 if training collapsed: accuracy at chance, or a loss or a bound that is impossible.
    """
    from isthmus.training.processes import is_first_process
    from isthmus.training.start import train as start

    run = start(recipe, overrides or [], out=out, progress=not quiet)
    if not is_first_process():
        return
    result = run.info()["result"]
    _echo(f"test accuracy: {100 * result['test_accuracy']:.2f}%")
    if note := run.info()["data"].get("note"):
        _echo(f"data: {note}")
    _echo(f"run: {run.path}")
    if result["collapsed"]:
        _echo(f"Error: Training collapsed. {result.get('collapse', '')}".strip(), err=True)
        raise typer.Exit(2)


@app.command()
def audit(
    run: RunFolder = None,
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    threat: Annotated[str, typer.Option(help="Norm and largest ε: linf:0.1, linf:8/255, l2:0.5, l1:5.")] = "linf:0.1",
    n: Annotated[
        int | None, typer.Option("--n", min=1, max=_MOST, help="Judge on this many test images.", show_default="all")
    ] = None,
    checks: Annotated[
        str | None,
        typer.Option(help="Comma-separated checks; see isthmus list checks.", show_default="all of ours"),
    ] = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="Try harder: more restarts and steps.")] = False,
    claimed: Annotated[
        str | None,
        typer.Option(
            help="Robust accuracy that somebody reports, for the verdict: 53%, 0.53.", show_default="PGD's, measured"
        ),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST,
            help="Passes for each image that the verdict may spend, at most.",
            show_default="10000; 50000 with --full",
        ),
    ] = None,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MOST, help="Images the model may be shown in all, as of a service.", show_default="no limit"
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; if not given, the run itself, or runs/MODEL-WEIGHTS.", show_default=False),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MOST, help="The run's model after this step, of training.snapshots.", show_default="the end"
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Images at a time; halved where memory runs out.")
    ] = 256,
    executor: Executor = "local",
    address: Address = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help="Workers on the cluster.", show_default="as many as fit")
    ] = None,
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Audit a trained run, or any classifier, and write a page about it, with a verdict on its robust accuracy.

    Ends with exit code 3 if the robust accuracy is overstated, with 4 if it is broken, with 5 if that is undecided (the
    budget of --passes or --max-queries was spent, a test broke off, or the model gives no gradient), and with 2 if a
    check that was asked for broke off with an error, or the classifier is no better than a constant answer; results
    and page are written even so.
    """
    from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING, AuditOptions
    from isthmus.audits.target import ModelSource, audit_run

    if jobs is not None and executor == "local":
        raise ConfigError("--jobs of an audit are workers on a cluster, for --executor ray; this machine works in one.")
    names = [name.strip() for name in checks.split(",")] if checks is not None else None
    page = audit_run(
        ModelSource(run, model, weights, data, n, out, step),
        threat,
        names,
        "full" if full else "quick",
        claimed,
        seed,
        AuditOptions(
            passes=passes,
            max_queries=max_queries,
            batch_size=batch_size,
            progress=not quiet,
            cluster=_cluster(executor, address, jobs, worker_cpus, worker_gpus),
        ),
    )
    subjects = _show([page.parent])
    _echo(f"page: {page}")
    # a name may have an option after it, as in transfer:mnist
    asked = [*DEFAULT_CHECKS, *WITH_TRAINING] if names is None else [name.partition(":")[0] for name in names]
    _stop_at_errors(subjects, asked)
    _stop_at_chance(subjects, asked)
    _stop_at_illusions(subjects, asked)


@app.command()
def attack(
    run: RunFolder = None,
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    threat: Annotated[str, typer.Option(help="Norm and ε: linf:0.1, linf:8/255, l2:0.5, l1:5.")] = "linf:0.1",
    suite: Annotated[
        str, typer.Option(help="standard, fast, ib, rand; or attacks, such as fgsm,pgd:100.")
    ] = "standard",
    n: Annotated[
        int | None, typer.Option("--n", min=1, max=_MOST, help="Attack this many test images.", show_default="all")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help="Examples at a time.", show_default="as memory allows")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=_MOST, help="Processes that share the work.")] = 1,
    until: Annotated[
        str | None,
        typer.Option(help="Stop where the 95% interval is within ± this: 1%, 0.01.", show_default="never"),
    ] = None,
    seed: Seed = 0,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Gradients in bfloat16; judged in float32 all the same.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; if not given, attack-SUITE-THREAT-nN.safetensors in the run or in runs/MODEL-WEIGHTS.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST,
            help="Queries (images shown to the model, forward and backward) that all images may cost together; then "
            "the result is an upper bound, with exit code 5.",
            show_default="no limit",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Attack one part of the images, such as 3/32, for a job array; `isthmus merge` joins the files.",
            show_default="all images",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Attack a trained run, or any classifier, and keep a witness of every example that was broken.

    Interrupted or killed, the same command goes on where it stopped. After Ctrl-C (exit code 130) the file holds what
    was found so far; likewise where --max-queries ended it (exit code 5). Ends with exit code 2 if the model is no
    better than a constant answer. A finished result is not overwritten without --force.
    """

    from isthmus.audits import attack_command

    result, path = attack_command.attack(
        run,
        model=model,
        weights=weights,
        data=data,
        threat=threat,
        suite=suite,
        count=n,
        batch_size=batch_size,
        jobs=jobs,
        until=until,
        seed=seed,
        bf16=bf16,
        out=out,
        force=force,
        max_queries=max_queries,
        shard=shard,
        show_progress=not quiet,
    )
    _show_attack(result, path)
    if result.exhausted:
        raise typer.Exit(5)
    if not result.complete:
        raise KeyboardInterrupt


def _show_attack(result: RobustResult, path: Path) -> None:
    """Print what attacks found; exit code 2 if the model is no better than a constant answer."""
    from rich.console import Console

    from isthmus.audits import attack_command

    table, lines = attack_command.outcome(result)
    Console().print(table)
    for line in [*lines, f"witnesses: {path}"]:
        _echo(line)
    if result.shard is None and not attack_command.above_chance(result):
        _echo(
            "Error: the clean accuracy is not above that of a constant answer; `isthmus audit --checks accuracy` says "
            "what is likely wrong.",
            err=True,
        )
        raise typer.Exit(2)


@app.command()
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Files that isthmus attack --shard wrote, in any order.")],
    out: Annotated[Path, typer.Option(help="File to write, as isthmus attack without --shard does.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Merge the shards of an attack into the result of the whole attack.

    Refuses shards that are missing, given twice, incomplete, or of different models, data, seeds, threats, suites or
    versions.
    """
    from isthmus.audits import attack_command

    _show_attack(attack_command.merge(shards, out, force), out)


@app.command()
def verify(
    witnesses: Annotated[Path, typer.Argument(help="File that isthmus attack wrote, or folder of an audit.")],
    run: Annotated[Path | None, typer.Argument(help="Run folder of the model.", show_default=False)] = None,
    model: Model = None,
    weights: Weights = None,
    data: Annotated[
        str | None, typer.Option(help="Compare the originals with this data; a run's own if not given.")
    ] = None,
    threat: Annotated[
        str | None, typer.Option(help="Refuse a file about another threat, such as linf:8/255.", show_default=False)
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, max=_MOST, help="Refuse a file with another number of images.", show_default=False),
    ] = None,
) -> None:
    """Recompute an upper bound on robust accuracy from adversarial examples: no attack runs, and no file is believed.

    Nobody can verify which attacks ran, nor that there are no further examples: say with --n and --threat what is
    expected, and with --data which images.

    Ends with exit code 2 if what the file claims does not hold for this model.
    """
    from isthmus.audits import attack_command

    done = attack_command.verify(witnesses, run, model=model, weights=weights, data=data, threat=threat, count=n)
    for line in attack_command.account(done):
        _echo(line)
    if not done.agrees:
        _echo(f"Error: what {witnesses} claims does not hold for this model and data (reasons above).", err=True)
        raise typer.Exit(2)
    _echo(attack_command.verified(done))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Audited run folders; others among them are left out.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
) -> None:
    """Draw one page that compares audited runs, from their results alone."""
    from isthmus.core import files
    from isthmus.report import page
    from isthmus.report.loading import is_audited

    given = [run for run in runs if files.real(run) != files.real(out)]  # "runs/* --out runs/index.html", called again
    left_out = [run for run in given if files.exists(run) and not is_audited(run)]
    chosen = [run for run in given if run not in left_out]
    if chosen and left_out:
        names = ", ".join(map(str, left_out))
        _echo(f"Warning: left out, since there is no finished audit in them: {names}", err=True)
    written = page.write(chosen or given, out)
    _show(chosen)
    _echo(f"page: {written}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the five runs and the page.")] = Path("runs/demo"),
    quiet: Quiet = False,
) -> None:
    """Train five classifiers on real digits, audit them, and write a page that compares them."""
    from isthmus.studies.demo import CHECKS, recipes, run_demo

    page = run_demo(out, show_progress=not quiet)
    subjects = _show([out / recipe.name for recipe in recipes()])
    _echo(f"page: {page}")
    asked = [check if isinstance(check, str) else check["name"] for check in CHECKS]
    _stop_at_errors(subjects, asked)
    _stop_at_chance(subjects, asked)


@app.command()
def study(
    name: Annotated[
        str | None,
        typer.Argument(help="Such as closer-look/figure-1; without one, all are listed.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the scale's: seeds=2 training.epochs=5.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="tiny (seconds, on toys or digits), small (minutes on 2 cores) or paper.")
    ] = "small",
    out: Annotated[Path, typer.Option(help="Folder of all studies and their trained models.")] = Path("runs/studies"),
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST,
            help="Processes, or workers on the cluster, that share the models.",
            show_default="1; as many workers as fit",
        ),
    ] = None,
    executor: Executor = "local",
    address: Address = None,
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Repeat a figure of a paper, and say which of its claims are supported, contradicted or undecided.

    Interrupted or killed, the same command goes on where it stopped. Ends with exit code 2 if something could not be
    measured, such as a training run that diverged; all the rest is kept and shown, and the same command tries again.
    """
    from isthmus.studies import catalogue

    if name is None:
        for each in catalogue.names():
            _wrapped(f"{each}: {catalogue.question(each)}")
        return
    from isthmus.studies.running import run_study

    cluster = _cluster(executor, address, jobs, worker_cpus, worker_gpus)
    record, page = run_study(
        name, scale, overrides or [], out, show_progress=not quiet, jobs=jobs or 1, cluster=cluster
    )
    for note in record.notes:
        _echo(f"data: {note}")
    for claim in record.claims:
        _echo(f"claim: {claim}")
    for apart in record.collapsed:
        _echo(f"collapsed: {apart}", err=True)
    _echo(f"page: {page}")
    if record.failures:
        for failed, why in record.failures.items():
            _echo(f"failed: {failed}: {why}", err=True)
        _echo(f"Error: {len(record.failures)} of {record.total} could not be measured (above).", err=True)
        raise typer.Exit(2)


def _echo(text: str, err: bool = False) -> None:
    """Print a line."""
    typer.echo(printable(text), err=err)


def _wrapped(text: str) -> None:
    """Print text in lines as wide as the terminal (80 columns if there is none), broken between words alone."""
    width = shutil.get_terminal_size().columns
    for line in textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False):
        _echo(line)


class _Lines(logging.Formatter):
    """A warning is a line, too."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.exc_info else printable(text)


def _cluster(executor: str, address: str | None, jobs: int | None, cpus: int, gpus: float) -> Cluster | None:
    """Where workers are hired, as the options of a verb say; None for this machine's own processes."""
    from isthmus.core.ray_cluster import Cluster

    if executor not in EXECUTORS:
        raise ConfigError(unknown("executor", executor, EXECUTORS))
    if executor == "ray":
        return Cluster(address, jobs, cpus, gpus)
    if address is not None or cpus != 1 or gpus:
        raise ConfigError("--address, --worker-cpus and --worker-gpus are for --executor ray.")
    return None


@app.command("list")
def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="data, backbones, objectives, callbacks, attacks, checks, shifts or studies.")
    ] = None,
) -> None:
    """List what can be named in recipes and options."""
    from isthmus.core import registry
    from isthmus.core.errors import unknown
    from isthmus.studies import catalogue

    kinds = [*registry.KINDS, "studies"]
    if kind is not None and kind not in kinds:
        raise ConfigError(unknown("kind", kind, kinds))
    for each in [kind] if kind else kinds:
        _wrapped(f"{each}: {', '.join(catalogue.names() if each == 'studies' else registry.names(each))}")


def _show(folders: list[Path]) -> list[AuditedModel]:
    """Print the comparison table, what did not pass and why, and the verdicts."""
    from rich.console import Console

    from isthmus.report import terminal
    from isthmus.report.loading import load_all

    subjects = load_all(folders)
    console = Console()
    console.print(terminal.comparison(subjects))
    remarks = terminal.remarks(subjects)
    if remarks.row_count:
        console.print(remarks)
    for line in terminal.verdicts(subjects):
        _echo(line)
    return subjects


def _stop_at_errors(subjects: Sequence[AuditedModel], asked: Sequence[str]) -> None:
    """End with exit code 2 where a check that was asked for broke off, so that no script takes that for a success."""
    from isthmus.core.types import Status

    ended = [(check, subject) for subject in subjects for check in asked if check in subject.results]
    broken = [f"{check} of {subject.name}" for check, subject in ended if subject.results[check].status is Status.ERROR]
    if broken:
        _echo(
            f"Error: {', '.join(broken)} broke off (reasons above). Everything else is kept; the same command "
            "tries again what broke off.",
            err=True,
        )
        raise typer.Exit(2)


def _stop_at_chance(subjects: Sequence[AuditedModel], asked: Sequence[str]) -> None:
    """End with exit code 2 where a classifier is no better than a constant answer, or collapsed in training."""
    from isthmus.checks.accuracy import MIN_IMAGES

    for subject in subjects:
        reason = subject.collapse if subject.collapsed else ""
        for check, name in (("accuracy", "accuracy"), ("diagnosis", "clean_accuracy")):
            result = subject.results.get(check) if check in asked else None
            metric = result.metrics.get(name, mode="mean") if result is not None else None
            if result is None or metric is None or metric.interval is None or metric.n < MIN_IMAGES:
                continue
            if metric.interval.low <= result.details["chance"]:
                said = f"{metric.value:.1%} of {metric.n:,} clean images are classified correctly."
                reason = reason or (result.reason if check == "accuracy" else said)
        if reason:
            _echo(f"Error: {subject.name} is at chance. {reason}", err=True)
            raise typer.Exit(2)


def _stop_at_illusions(subjects: Sequence[AuditedModel], asked: Sequence[str]) -> None:
    """End with exit code 3, 4 or 5 where a robust accuracy is overstated, broken or undecided; the gravest counts."""
    if "diagnosis" not in asked:
        return
    results = [subject.results["diagnosis"] for subject in subjects if "diagnosis" in subject.results]
    codes = {"broken": 4, "overstated": 3, "undecided": 5}  # the gravest first
    given = {result.details["verdict"]["status"] for result in results if result.details}
    code = next((code for status, code in codes.items() if status in given), 0)
    if code:
        raise typer.Exit(code)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 a fault of ours, 2 a mistake that can be mended, training that collapsed, a classifier at
    chance, a check that broke off or witnesses that do not hold, 3 an overstated robust accuracy, 4 a broken one, 5 an
    undecided one, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):  # a name that is no text must not end what is otherwise done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    log = logging.StreamHandler()
    log.setFormatter(_Lines("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[log])
    logging.getLogger("isthmus").setLevel(logging.DEBUG if debug else logging.WARNING)
    for part in ("rank_zero", "distributed"):  # they announce every precision and process they set up
        logging.getLogger(f"lightning_fabric.utilities.{part}").setLevel(logging.WARNING)
    sys.exit(_run(given, debug))


def _run(given: list[str], debug: bool) -> int:
    try:
        code: Any = app(given, standalone_mode=False)
        if code == _INTERRUPTED:  # what the parser makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code) if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _echo(f"Interrupted. What was done is kept. To resume: {shlex.join(['isthmus', *given])}", err=True)
        return _INTERRUPTED
    except IsthmusError as error:
        if debug:
            raise
        _echo(f"Error: {error}", err=True)
        return 2
    except OSError as error:
        if debug or error.filename is None:
            return _unexpected(error, debug)
        _echo(f"Error: Cannot use {error.filename}: {error.strerror}; give another path.", err=True)
        return 2
    except Exception as error:
        if out_of_memory(error) and not debug:
            _echo(f"Error: {_NO_MEMORY} ({brief(error, 200)})", err=True)
            return 2
        return _unexpected(error, debug)


def _unexpected(error: Exception, debug: bool) -> int:
    show = getattr(error, "show", None)  # a misspelt option: the parser's own words and exit code
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if debug:
        raise error
    said = f"{type(error).__name__}: {error}".rstrip(".")
    if place := foreign_code(error):
        _echo(f"Error in {place}, which is not part of isthmus: {said}. --debug shows the traceback.", err=True)
        return 2
    _echo(f"Error inside isthmus: {said}. Run again with --debug for details.", err=True)
    return 1


if __name__ == "__main__":
    main()
