"""The command line. A mistake that the user can correct prints one sentence; --debug adds the traceback."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer

from isthmus.cli.attack import attack
from isthmus.cli.audit import audit
from isthmus.cli.bundle import bundle
from isthmus.cli.compare import compare
from isthmus.cli.demo import demo
from isthmus.cli.exit_codes import BUG, ERROR, INTERRUPTED
from isthmus.cli.export import export
from isthmus.cli.list_names import list_names
from isthmus.cli.merge import merge
from isthmus.cli.options import Command, CommandGroup, examples
from isthmus.cli.output import echo
from isthmus.cli.report import report
from isthmus.cli.study import study
from isthmus.cli.train import train
from isthmus.cli.verify import verify
from isthmus.core.errors import IsthmusError, brief, out_of_memory, printable, third_party_code


def _print_version(given: bool) -> None:
    if given:
        echo(f"isthmus {metadata.version('isthmus')}")
        raise typer.Exit


app = typer.Typer(
    name="isthmus",
    cls=CommandGroup,
    help="Train information-bottleneck classifiers, and audit any PyTorch classifier for robust generalisation.",
    epilog="Start with `isthmus demo`. `isthmus COMMAND -h` shows the options of a command and two examples. "
    "Every command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "demo": (demo, examples("demo", "demo --out runs/demo --all")),
    "train": (
        train,
        examples(
            "train examples/recipes/digits-ceb.yaml",
            "train examples/recipes/digits-ceb.yaml objective.rho=2 seed=3 name=digits-ceb-rho2",
        ),
    ),
    "audit": (
        audit,
        examples(
            "audit runs/digits-ceb --threat linf:0.1",
            "audit --model mypackage.models:build --weights w.safetensors --data cifar10 --threat linf:8/255 --n 1000",
        ),
    ),
    "attack": (
        attack,
        examples(
            "attack runs/digits-ceb --threat linf:0.1 --suite fast",
            "attack --model mypackage.models:build --weights w.safetensors --data mnist --suite fgsm,pgd:100 --jobs 2",
        ),
    ),
    "merge": (
        merge,
        examples(
            "merge parts/1.safetensors parts/2.safetensors --out whole.safetensors",
            "merge parts/*.safetensors --out whole.safetensors --force",
        ),
    ),
    "verify": (
        verify,
        examples(
            "verify runs/digits-ceb/attack-fast-linf-0.1-n359.safetensors runs/digits-ceb",
            "verify result.safetensors --model mypackage.models:build --weights w.safetensors --data mnist --n 10000",
        ),
    ),
    "report": (
        report,
        examples("report runs/digits-ceb runs/digits-vib --out report.html", "report runs/* --json"),
    ),
    "compare": (
        compare,
        examples("compare runs/before runs/after", "compare runs/before runs/after --markdown comparison.md"),
    ),
    "bundle": (bundle, examples("bundle runs/digits-ceb --out evidence.zip", "bundle runs/digits-ceb --force")),
    "export": (
        export,
        examples("export runs/digits-ceb --formats junit,sarif,markdown", "export runs/* --formats json --out exports"),
    ),
    "study": (
        study,
        examples("study closer-look/figure-5 --scale tiny", "study ceb/fashion --scale small --jobs 2 seeds=2"),
    ),
    "list": (list_names, examples("list", "list attacks")),
}
"""Functions of the commands, and the examples at the end of their help."""

for _name, (_command, _examples) in COMMANDS.items():
    app.command(_name, cls=Command, epilog=_examples)(_command)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", metavar="", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    pass


_NO_MEMORY = (
    "There is not enough memory. Results so far are kept. If other programs use the memory, end them and run the same "
    "command again to resume; otherwise use fewer images (--n) or fewer processes (--jobs)."
)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line.

    Exit codes: 0 done; 1 a fault of isthmus; 2 a mistake that the user can correct, training that collapsed, a
    classifier at chance, a check that failed or a claim that does not hold; 3 an overstated robust accuracy, 4 a broken
    one, 5 an undecided one; 6 below a threshold; 7 a regression; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):  # a name that cannot be encoded must not end the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _configure_logging(debug)
    sys.exit(run(given, debug))


def _configure_logging(debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("isthmus").setLevel(logging.DEBUG if debug else logging.WARNING)
    for part in ("rank_zero", "distributed"):  # they log every precision and process that they set up
        logging.getLogger(f"lightning_fabric.utilities.{part}").setLevel(logging.WARNING)


class _OneLine(logging.Formatter):
    """Log records in one line each, as errors are."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.exc_info else printable(text)


def run(given: list[str], debug: bool) -> int:
    """Run a command and return its exit code; with ``debug``, errors are raised."""
    try:
        code: Any = app(given, standalone_mode=False, obj=shlex.join(["isthmus", *given]))
        if code == INTERRUPTED:  # click's value for a KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code) if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        echo(f"Interrupted. Results so far are kept. To resume: {shlex.join(['isthmus', *given])}", err=True)
        return INTERRUPTED
    except IsthmusError as error:
        if debug:
            raise
        echo(f"Error: {error}", err=True)
        return ERROR
    except OSError as error:
        if debug or error.filename is None:
            return _unexpected(error, debug)
        echo(f"Error: Cannot use {error.filename}: {error.strerror}; give another path.", err=True)
        return ERROR
    except Exception as error:
        if out_of_memory(error) and not debug:
            echo(f"Error: {_NO_MEMORY} ({brief(error, 200)})", err=True)
            return ERROR
        return _unexpected(error, debug)


def _unexpected(error: Exception, debug: bool) -> int:
    show = getattr(error, "show", None)  # click's own error, for example a misspelt option
    if show is not None:
        if text := getattr(error, "message", None):
            vars(error)["message"] = text.partition(", unable to parse")[0]
        show()
        return int(getattr(error, "exit_code", ERROR))
    if debug:
        raise error
    message = f"{type(error).__name__}: {error}".rstrip(".")
    if place := third_party_code(error):
        echo(f"Error in {place}, which is not part of isthmus: {message}. --debug shows the traceback.", err=True)
        return ERROR
    echo(f"Error inside isthmus: {message}. Run again with --debug for details.", err=True)
    return BUG


if __name__ == "__main__":
    main()
