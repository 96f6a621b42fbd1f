"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from isthmus.core.ray_cluster import Cluster

MOST = 2**31 - 1
"""The largest count or seed, as in a recipe."""

EXECUTORS = ("local", "ray")


def number(help: str, *names: str, least: int = 1, **more: Any) -> Any:
    """An option whose value is a whole number from ``least`` to :data:`MOST`."""

    def check(value: int | None) -> int | None:
        if value is not None and not least <= value <= MOST:
            raise typer.BadParameter(f"{value} is not from {least} to {MOST}.")
        return value

    return typer.Option(*names, metavar="N", help=help, callback=check, **more)


def text(help: str, metavar: str, **more: Any) -> Any:
    """An option whose value has the form ``metavar``, such as NORM:EPS."""
    return typer.Option(metavar=metavar, help=help, **more)


def flag(help: str, *names: str) -> Any:
    """An option without a value."""
    return typer.Option(*names, metavar="", help=help)


Quiet = Annotated[bool, flag("No progress bars.", "--quiet", "-q")]
Force = Annotated[bool, flag("Overwrite the file if it exists.", "--force")]
Seed = Annotated[int, number("Seed of all random choices.", least=0)]

RunFolder = Annotated[Path | None, typer.Argument(help="Run folder of a trained model.", show_default=False)]
Model = Annotated[
    str | None, text("A function of your own code that builds a model.", "MODULE:FUNCTION", show_default=False)
]
Weights = Annotated[Path | None, text("Weights for --model, a safetensors file.", "FILE", show_default=False)]
Data = Annotated[
    str | None,
    text(
        "Test images: digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or imagenet:PATH; with options as in a "
        "recipe: '{name: folder, path: PATH, channels: 1}'.",
        "NAME",
        show_default="the run's own",
    ),
]
Threat = Annotated[str, text("Norm and largest ε: linf:0.1, linf:8/255, l2:0.5, l1:5.", "NORM:EPS")]
Images = Annotated[int | None, number("Number of test images, balanced over classes.", "--n", show_default="all")]

Executor = Annotated[str, text("local, or ray for workers on a cluster.", "NAME")]
Address = Annotated[
    str | None,
    text(
        "Address of the Ray cluster: auto, or ray://HEAD:10001.",
        "ADDRESS",
        show_default="RAY_ADDRESS, or this machine alone",
    ),
]
WorkerCpus = Annotated[int, number("CPUs of each worker on the cluster.")]
WorkerGpus = Annotated[
    float, typer.Option(min=0, metavar="X", help="GPUs of each worker on the cluster; two workers share one at 0.5.")
]


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
