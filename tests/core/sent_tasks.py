"""Tasks that worker processes import by name."""

import os
import signal
import time
from pathlib import Path


class Foreign(Exception):
    """Cannot be unpickled: its constructor takes two arguments, and it passes on one."""

    def __init__(self, one, other):
        super().__init__(one)


class Square:
    """The square of a number, with the process that computed it; reports the number first. Counts its pickles."""

    sent = 0

    def __call__(self, shard, report):
        report(shard)
        return shard**2, os.getpid()

    def __getstate__(self):
        type(self).sent += 1
        return {}


class Fail:
    """Raises the error that it is given."""

    def __call__(self, shard, report):
        if isinstance(shard, Exception):
            raise shard
        return shard


class Foreigner:
    """Raises an error that cannot be sent."""

    def __call__(self, shard, report):
        raise Foreign("far away", shard)


class Killed:
    """Kills its process at shards below zero: once where a file can be made, always without a folder."""

    def __init__(self, folder=None):
        self.folder = folder

    def __call__(self, shard, report):
        report("begun")
        if shard < 0:
            try:
                if self.folder is not None:
                    (Path(self.folder) / f"{-shard}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return shard


class Sleep:
    """Sleeps for long; interrupted, it leaves a file in its folder, and returns how far it was."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, shard, report):
        (Path(self.folder) / f"begun-{shard}").write_text(str(os.getpid()))
        try:
            for second in range(6000):
                report(second)
                time.sleep(0.05)
        except KeyboardInterrupt:
            (Path(self.folder) / f"saved-{shard}").touch()
            return "a part"


class SleepOnce:
    """Waits until a file is in its folder; counts starts in another."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, shard, report):
        with (self.folder / "starts").open("a") as starts:
            starts.write("x")
        while True:
            report("waits")
            time.sleep(0.05)
            if (self.folder / "go").exists():
                return shard


class Deaf:
    """Cannot be interrupted."""

    def __call__(self, shard, report):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        report("begun")
        time.sleep(600)
