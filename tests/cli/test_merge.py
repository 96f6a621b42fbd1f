"""``isthmus attack --shard`` and ``isthmus merge``."""

import pytest
import torch

from isthmus.attacks.result import RobustResult
from isthmus.audits import attack_file
from isthmus.cli import app
from isthmus.core.errors import ConfigError
from tests.cli.commands import LONG, isthmus, named_net


def attack(home, *options):
    """The command with the options ``LONG``, in this process; errors are raised."""
    named_net(home)  # makes its module importable from any folder
    given = ("--model", "net:build", "--weights", home / "weights.safetensors", "--data", "digits")
    assert app.run(["attack", *map(str, (*given, *LONG, *options))], debug=True) == 0


def test_merged_shards_are_the_file_of_the_whole_attack(net_home, attacked):
    parts = [net_home / f"part-{number}.safetensors" for number in (1, 2)]
    for number, path in enumerate(parts, 1):
        attack(net_home, "--shard", f"{number}/2", "--out", path)
        assert len(RobustResult.load(path)) == 20
    merged = attack_file.merge(parts[::-1], net_home / "merged")
    whole = RobustResult.load(attacked)
    assert torch.equal(merged.stage, whole.stage)
    assert torch.equal(merged.adversarial, whole.adversarial)
    assert RobustResult.load(net_home / "merged").accuracy == whole.accuracy
    with pytest.raises(ConfigError, match="exists already"):
        attack_file.merge(parts[::-1], net_home / "merged")
    done = isthmus("merge", "part-1.safetensors", "--out", "one", cwd=net_home)
    assert done.returncode == 2
    assert "1 of 2 shards are missing: 2" in done.stderr


@pytest.mark.parametrize("option", [("--ci-half-width", "1%"), ("--max-queries", 1000), ("--suite", "fast")])
def test_a_shard_needs_no_more_than_its_own_images(net_home, option):
    with pytest.raises(ConfigError, match="shard"):
        attack(net_home, "--shard", "1/2", "--out", net_home / "never.safetensors", *option)
