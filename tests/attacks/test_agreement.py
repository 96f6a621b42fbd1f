"""Ours against torchattacks and foolbox on a really trained model: at equal budgets, the same examples break.

In full, on larger models and budgets, it is ``python -m benchmarks.agreement``. Below are faults of the peers themselves.
"""

import pytest
import torch
from attacked_models import Linear, Smooth, pictures
from benchmarks import peers
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from isthmus.attacks import L2, Linf, pgd, robust_accuracy
from isthmus.attacks.api import ready
from isthmus.attacks.minimal_norm import minimal_norms


def torchattacks():
    pytest.importorskip("torchattacks", reason="compares with torchattacks, which 'make setup' installs")
    return peers.torchattacks()


def foolbox():
    pytest.importorskip("git", reason="foolbox wants GitPython")  # before foolbox, which peers imports without noise
    if peers.find_spec("foolbox") is None:
        pytest.skip("compares with foolbox, which the extra 'dev' installs")
    return peers.foolbox()
