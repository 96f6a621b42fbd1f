"""Options of an audit that few callers need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.ray_cluster import Cluster
from isthmus.data.images import Examples

Progress = Callable[[str, int, int], None]
"""Called with check, done and total."""


@dataclass(frozen=True)
class AuditOptions:
    """Further options of :func:`isthmus.audit`.

    Attributes:
        trained_on: the classifier's training examples, images in [0, 1] with their labels, or a split of data such as
            ``load("digits").train``, for the check ``memorisation``. The audited images must not be among them.
        passes: most example-passes for each image, forward and backward, of the check ``diagnosis``, which must then be
            among the checks; its default if None.
        max_queries: most images that the model and its copies may be shown in all, for a service that charges by query.
            The diagnosis gets what that allows for each image, if it is less than ``passes``. Once all are spent,
            checks end with an error, and the verdict is undecided unless it is already clear. Not with ``cluster``.
        name: the model's name on the page; its class name if None.
        data: the data's name on the page.
        indices: positions of the images in their data set, so that an image gets the same noise in any subset and order
            of images; 0..N−1 if None.
        chosen: how the images were chosen from the data, in words, for the record.
        command: the command that runs this audit, for the record, and to name it if the audit is not finished.
        batch_size: of the checks' forward passes, halved if memory runs out. Results agree up to rounding, unless the
            model draws random noise itself (see :class:`isthmus.models.modes.AveragedDraws`).
        debug: raise a check's unexpected error instead of recording it.
        progress: as the argument of :func:`isthmus.audit`, which has precedence.
        cluster: Ray workers share the attacks' examples; results are those of one process. Each gets the model once, by
            pickle.
    """

    trained_on: Examples | tuple[Float[Tensor, "m c h w"], Int[Tensor, "m"]] | None = None
    passes: int | None = None
    max_queries: int | None = None
    name: str | None = None
    data: str = "user images"
    indices: Int[Tensor, "n"] | None = None
    chosen: str = "all"
    command: str = ""
    batch_size: int = 256
    debug: bool = False
    progress: Progress | bool | None = None
    cluster: Cluster | None = None
