"""TensorBoard's event files, in ``tensorboard/`` of the run folder.

A resumed run tells TensorBoard to drop the points after its checkpoint (``purge_step``), since it takes these steps
again.
"""

from __future__ import annotations

from typing import Any, Literal

from isthmus.core.trackers import imported
from isthmus.training.loggers.logger import LoggedRun, Logger, TrackerState


class TensorBoard(Logger):
    """Event files for TensorBoard; needs the extra ``tensorboard``."""

    name: Literal["tensorboard"] = "tensorboard"

    def require(self) -> None:
        """Check that TensorBoard is installed."""
        _writer()

    def start(self, run: LoggedRun) -> TrackerState:
        """Start another event file in the same folder."""
        writer = _writer()(str(run.folder / "tensorboard"), purge_step=run.step + 1)
        return TrackerState(writer, lambda step: step <= run.step, lambda finished: writer.close())


def _writer() -> Any:
    return imported("torch.utils.tensorboard", "tensorboard", "The logger 'tensorboard'").SummaryWriter
