"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from isthmus.core.ray_cluster import Cluster

MOST = 2**31 - 1
"""The largest count or seed, as in a recipe."""

EXECUTORS = ("local", "ray")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST, help="Seed of all random choices.")]

RunFolder = Annotated[Path | None, typer.Argument(help="Run folder of a trained model.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(help="A model from your own code: package.module:function.", show_default=False)
]
Weights = Annotated[Path | None, typer.Option(help="Its weights, a safetensors file.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or imagenet:PATH; with options as in a recipe: "
        "'{name: folder, path: PATH, channels: 1}'.",
        show_default="the run's own",
    ),
]

Executor = Annotated[str, typer.Option(help="local, or ray for workers on a cluster.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster: auto, or ray://HEAD:10001.",
        show_default="RAY_ADDRESS, or this machine alone",
    ),
]
WorkerCpus = Annotated[int, typer.Option(min=1, max=MOST, help="CPUs of each worker on the cluster.")]
WorkerGpus = Annotated[
    float, typer.Option(min=0, help="GPUs of each worker on the cluster; two workers share one at 0.5.")
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
