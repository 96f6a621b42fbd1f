"""A run of Weights & Biases, with the recipe as its configuration.

Its id is that of the run folder, so that a resumed run continues it. With ``WANDB_MODE=offline`` each start writes a
folder of its own with all metrics so far and the same id: the last folder has the whole run.
"""

from __future__ import annotations

from typing import Any, Literal

from isthmus.core.errors import ConfigError, one_line
from isthmus.core.trackers import imported
from isthmus.training.loggers.logger import LoggedRun, Logger, TrackerState


class WandB(Logger):
    """A run of W&B; needs the extra ``wandb``. Its files are in ``wandb/`` of the run folder.

    Attributes:
        project, entity: where the run appears; None means what W&B's own settings say, such as ``WANDB_PROJECT``.
    """

    name: Literal["wandb"] = "wandb"
    project: str | None = None
    entity: str | None = None

    def require(self) -> None:
        """Check that W&B is installed."""
        self._library()

    def start(self, run: LoggedRun) -> TrackerState:
        """Start or resume the run of W&B, beside any other that is active.

        Raises:
            ConfigError: W&B refuses, for example without an API key.
        """
        library = self._library()
        try:
            started = library.init(
                project=self.project,
                entity=self.entity,
                id=run.id,
                name=run.name,
                dir=str(run.folder),
                resume="allow",
                reinit="create_new",
                settings=library.Settings(console="off"),  # it would capture the progress bar
            )
        except Exception as error:  # W&B has many, without a common base
            raise ConfigError(
                f"The logger 'wandb' cannot start: {one_line(error)}. Without a network or an account, set "
                "WANDB_MODE=offline."
            ) from error
        started.config.update(dict(run.recipe), allow_val_change=True)
        first = started.step  # the next one, of a run that has some
        return TrackerState(
            started, lambda step: step < first, lambda finished: started.finish(exit_code=0 if finished else 1)
        )

    def _library(self) -> Any:
        return imported("wandb", "wandb", "The logger 'wandb'")
