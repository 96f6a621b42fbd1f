"""What each of two processes does in tests/training/test_processes.py; imported by name in a fresh interpreter."""

import json
import os
import signal
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]


def work(rank: int, port: int, folder: Path, jobs: dict[str, Any]) -> None:
    """Train one recipe after another as this rank, and write down how each of them ended."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    torch.set_num_threads(1)
    ended = {name: _train(rank, folder / name, job) for name, job in jobs.items()}
    (folder / f"ended-{rank}.json").write_text(json.dumps(ended))


def _train(rank: int, out: Path, job: dict[str, Any]) -> Outcome:
    import isthmus
    from isthmus.training.loop import Trainer

    take_step, trainers = Trainer._step, []

    def watched(self: Trainer, parts: Any) -> None:
        trainers[:] = [self]
        take_step(self, parts)
        if job.get("interrupt") == self.step and rank == 1:  # one of them alone is asked to stop
            signal.raise_signal(signal.SIGINT)

    Trainer._step = watched  # type: ignore[method-assign]
    out = out.parent / job.get("folder", out.name)
    try:
        isthmus.train(job["recipe"], out=out, progress=False)
        how = "finished"
    except BaseException as error:
        how = f"{type(error).__name__}: {error}"
    finally:
        Trainer._step = take_step  # type: ignore[method-assign]
    return {"how": how, "step": trainers[0].step if trainers else None, "digest": _digest(trainers)}


def _digest(trainers: list[Any]) -> str | None:
    from isthmus.training import checkpoints

    return checkpoints.digest(trainers[0].model.state_dict()) if trainers else None
