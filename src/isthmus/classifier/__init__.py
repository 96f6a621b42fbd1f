"""Classifiers: building ours, adopting anybody else's, and the one contract that audits rely on.

The contract: an ``nn.Module`` in eval mode from float images N×C×H×W in [0, 1] to logits N×classes. Bottlenecks also
have ``encode``; a stochastic mode is a second module of the same contract. A foreign model that answers at random is
audited through a view that averages draws. Import from here.
"""

from isthmus.classifier.assembly import bottleneck
from isthmus.classifier.building import build
from isthmus.classifier.contract import Classifier, adopt, answers, fingerprint, same_answers, structure
from isthmus.classifier.foreign import foreign, load_weights
from isthmus.classifier.guessing import hypothesis

__all__ = [
    "Classifier",
    "adopt",
    "answers",
    "bottleneck",
    "build",
    "fingerprint",
    "foreign",
    "hypothesis",
    "load_weights",
    "same_answers",
    "structure",
]
