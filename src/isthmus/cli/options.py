"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from isthmus.core import registry
from isthmus.core.errors import ConfigError, FileError, shown, unknown

if TYPE_CHECKING:
    from isthmus.core.ray_cluster import Cluster
    from isthmus.models.preprocessing import Preprocessing

MOST = 2**31 - 1
"""The largest count or seed, as in a recipe."""

EXECUTORS = ("local", "ray")


MODEL, DATA, ATTACK, OUTPUT, EXECUTION = "Model", "Data", "Attack", "Output", "Execution"
"""Groups of options in the help of a command."""

SUITES = ("standard", "fast", "ib", "rand")
"""Suites of attacks, as in ``isthmus.attacks.suites``, which imports torch."""


def number(help: str, *names: str, least: int = 1, panel: str = EXECUTION, **more: Any) -> Any:
    """An option whose value is a whole number from ``least`` to :data:`MOST`."""

    def check(value: int | None) -> int | None:
        if value is not None and not least <= value <= MOST:
            raise typer.BadParameter(f"{value} is {f'below {least}' if value < least else f'above {MOST}'}.")
        return value

    return typer.Option(*names, metavar="N", help=help, callback=check, parser=_whole, rich_help_panel=panel, **more)


def _whole(written: str | int) -> int:
    """The whole number that an option's value is."""
    try:
        return int(written)
    except ValueError:
        raise typer.BadParameter(f"{shown(written)} is not a whole number.") from None


def text(help: str, metavar: str, panel: str = OUTPUT, **more: Any) -> Any:
    """An option whose value has the form ``metavar``, such as NORM:EPS."""
    return typer.Option(metavar=metavar, help=help, rich_help_panel=panel, **more)


def flag(help: str, *names: str, panel: str = EXECUTION) -> Any:
    """An option without a value."""
    return typer.Option(*names, metavar="", help=help, rich_help_panel=panel)


def argument(help: str, metavar: str, **more: Any) -> Any:
    """An argument of a command; its metavar is a name in capitals."""
    return typer.Argument(help=help, metavar=metavar, **more)


class Command(TyperCommand):
    """A command whose help shows the names of arguments and values, and no Python types such as ``<list[Path]>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options, for the help."""
        return [_without_type(param) for param in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line, with required arguments as bare names."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class CommandGroup(TyperGroup):
    """The same for the options of ``isthmus`` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options, for the help."""
        return [_without_type(param) for param in super().get_params(ctx)]


def _without_type(param: Any) -> Any:
    if isinstance(param, TyperArgument):
        param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
    elif param.metavar is None:
        param.metavar = ""
    return param


def _share(value: float) -> float:
    if not 0 <= value < float("inf"):
        raise typer.BadParameter(f"{value:g} is not a number from 0.")
    return value


def complete(*choices: str) -> Callable[[str], list[str]]:
    """Shell completion from fixed values; after a comma, of the last item of a list."""

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices if choice.startswith(last)]

    return completed


def complete_names(kind: str, *more: str) -> Callable[[str], list[str]]:
    """Shell completion from the names of a kind of component, and ``more``."""
    return lambda incomplete: complete(*more, *registry.names(kind))(incomplete)


def examples(*commands: str) -> str:
    """The end of a command's help: commands to copy, one a line."""
    return "Examples:\n\n" + "\n\n".join(f"`isthmus {command}`" for command in commands)


Quiet = Annotated[bool, flag("No progress bars.", "--quiet", "-q", panel=OUTPUT)]
Everything = Annotated[bool, flag("Show all numbers and warnings, not only the summary.", "--all", panel=OUTPUT)]
Json = Annotated[
    bool,
    flag("Print one JSON document on stdout and nothing else: verdicts, all metrics, page.", "--json", panel=OUTPUT),
]
FailUnder = Annotated[
    str | None,
    text(
        "Exit with code 6 if an accuracy is below: robust=40%,clean=90%.",
        "ACCURACIES",
        panel=OUTPUT,
        show_default="no threshold",
    ),
]
Force = Annotated[bool, flag("Overwrite the file if it exists.", "--force", panel=OUTPUT)]
Seed = Annotated[int, number("Seed of all random choices.", least=0)]

RunFolder = Annotated[Path | None, argument("Run folder of a trained model.", "RUN", show_default=False)]
Model = Annotated[
    str | None,
    text(
        "A model: module:function or file.py:function that builds it, a file .onnx, .pt2 or .pt (TorchScript), "
        "timm:NAME, torchvision:NAME, hf:NAME, robustbench:NAME; options follow, as in timm:vgg11,num_classes=10. "
        "ensemble:A,B,… averages several models or run folders.",
        "SPEC",
        panel=MODEL,
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    text("Weights for --model: safetensors, or a .pt file of a state dict.", "FILE", panel=MODEL, show_default=False),
]
Preset = Annotated[
    str | None,
    text(
        "Normalisation that --model expects: imagenet, cifar10, cifar100, svhn, mnist, fashion_mnist, clip, -1..1 or "
        "0..255.",
        "NAME",
        panel=MODEL,
        show_default="none, or a hub's own",
    ),
]
Mean = Annotated[
    str | None, text("Mean of the normalisation, per channel: 0.5,0.5,0.5.", "NUMBERS", panel=MODEL, show_default=False)
]
Std = Annotated[str | None, text("Standard deviation, likewise.", "NUMBERS", panel=MODEL, show_default=False)]
Size = Annotated[
    int | None,
    number(
        "Height and width that --model takes; images are resized.", "--size", panel=MODEL, show_default="as they are"
    ),
]
Data = Annotated[
    str | None,
    text(
        "Test images: digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder:PATH, csv:PATH, imagenet:PATH or "
        "module:function; options follow, as in folder:PATH,channels=1,size=28.",
        "NAME",
        panel=DATA,
        show_default="the run's own",
        autocompletion=complete_names("data"),
    ),
]
Classes = Annotated[
    str | None,
    text(
        "Keep these classes, in the order of the model's logits: cat,dog, or a file with a name on each line.",
        "NAMES",
        panel=DATA,
        show_default="all, in the data's order",
    ),
]
Threat = Annotated[str, text("Norm and largest ε: linf:0.1, linf:8/255, l2:0.5, l1:5.", "NORM:EPS", panel=ATTACK)]
Images = Annotated[
    int | None, number("Number of test images, balanced over classes.", "--n", panel=DATA, show_default="all")
]

Executor = Annotated[
    str,
    text("local, or ray for workers on a cluster.", "NAME", panel=EXECUTION, autocompletion=complete(*EXECUTORS)),
]
Address = Annotated[
    str | None,
    text(
        "Address of the Ray cluster: auto, or ray://HEAD:10001.",
        "ADDRESS",
        panel=EXECUTION,
        show_default="RAY_ADDRESS, or this machine alone",
    ),
]
WorkerCpus = Annotated[int, number("CPUs of each worker on the cluster.")]
WorkerGpus = Annotated[
    float,
    text("GPUs of each worker on the cluster; two workers share one at 0.5.", "X", panel=EXECUTION, callback=_share),
]


def preprocessing_of(preset: str | None, mean: str | None, std: str | None, size: int | None) -> Preprocessing:
    """What --preset, --mean, --std and --size say.

    Raises:
        ConfigError: an unknown preset, something else than numbers, or a preset beside numbers.
    """
    from isthmus.models import preprocessing

    if preset is not None and (mean is not None or std is not None):
        raise ConfigError("Give --preset, or --mean and --std; not both.")
    values = {"--mean": mean, "--std": std}
    numbers: dict[str, list[float] | None] = {}
    for option, given in values.items():
        try:
            numbers[option] = None if given is None else [float(part) for part in given.split(",")]
        except ValueError:
            raise ConfigError(
                f"{option} is numbers with commas between them, such as 0.5,0.5,0.5; got {given!r}."
            ) from None
    return preprocessing.preprocessing_of(preset or numbers["--mean"], numbers["--std"], size)


def classes_of(given: str | None) -> tuple[str, ...] | None:
    """The names that --classes lists, or those on the lines of its file.

    Raises:
        ConfigError: fewer than two.
        FileError: the file cannot be read.
    """
    if given is None:
        return None
    path = Path(given)
    try:
        parts = path.read_text("utf-8").splitlines() if path.is_file() else given.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"Cannot read the file of --classes, {path}: {error}.") from None
    names = tuple(name for part in parts if (name := part.strip()))
    if len(names) < 2:
        raise ConfigError(
            f"--classes names at least two classes, with commas between them, or a file with one on each line; got "
            f"{given!r}."
        )
    return names


def cluster_of(executor: str, address: str | None, jobs: int | None, cpus: int, gpus: float) -> Cluster | None:
    """The cluster that the options of a command describe; None for local processes.

    Raises:
        ConfigError: an unknown executor, or options of a cluster without one.
    """
    from isthmus.core.ray_cluster import Cluster

    if executor not in EXECUTORS:
        raise ConfigError(unknown("executor", executor, EXECUTORS))
    if executor == "ray":
        return Cluster(address, jobs, cpus, gpus)
    if address is not None or cpus != 1 or gpus:
        raise ConfigError("--address, --worker-cpus and --worker-gpus need --executor ray.")
    return None
