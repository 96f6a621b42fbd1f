"""Exact decisions: they agree with an enumeration of all activation patterns, and close the bracket."""

from __future__ import annotations

import time

import pytest
import torch

import isthmus
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.threats import L2, Linf
from isthmus.certificates import CertifyOptions, bounds, exact, network, regions, verify_certificates
from tests.certificates.small_networks import make, margins_of, pictures
from tests.certificates.test_bounds import tiny_problem


def program_of(model, image, threat):
    net, region = network.read(model, image), regions.region(threat, image)
    tight = bounds.tightened(net, net.intervals(region.box), region)
    return exact.Program(net, tight), region


@pytest.mark.parametrize("seed", range(6))
def test_decisions_are_those_of_an_enumeration(seed):
    model, image, label, threat, row, least = tiny_problem(seed, 0.3)
    program, _ = program_of(model, image, threat)
    decision = program.decide(row, time.monotonic() + 20)
    assert (decision.margin > 0) == (least > 1.2 * exact.MARGIN), least
    if least < 0:
        found = torch.from_numpy(decision.image).view(1, 1, 2, 2).float()
        assert margins_of(model(found), label).item() < 0
        assert (found.double() - image.double()).abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("kind", ["dense", "convolutions", "leaky", "batch norm", "residual"])
def test_a_program_contains_the_network(kind):
    """A sharp threshold: the margin at an allowed image is never below one that the program excludes."""
    model, images = make(kind, 2, scale=1.5), pictures(3, 2)
    labels = model(images).argmax(1)
    threat = Linf(0.03)
    result = isthmus.certify(model, images, labels, threat, CertifyOptions(methods=("crown", "milp")))
    attacked = robust_accuracy(model, images, labels, threat, ["pgd:20"])
    assert not bool((result.certified & attacked.broken).any())
    assert not result.undecided.any()
    assert verify_certificates(result, model).agrees


def test_the_bracket_closes_and_counterexamples_are_verified():
    model, images = make("dense", 5, scale=2), pictures(12, 5)
    labels = model(images).argmax(1)
    threat = Linf(0.2)
    result = isthmus.certify(model, images, labels, threat)
    assert result.lower.value == result.upper.value
    assert result.attacks == ("clean", "milp")
    assert 0 < int(result.broken.sum()) < 12
    assert bool((model(result.adversarial).argmax(1) != labels)[result.broken].all())
    assert bool(threat.contains(result.adversarial, images).all())
    assert result.by_method["milp"] > result.by_method["alpha-crown"]


def test_other_norms_and_layers_have_no_program():
    model, images = make("dense", 5, scale=2), pictures(4, 5)
    labels = model(images).argmax(1)
    ball = isthmus.certify(model, images, labels, L2(1.0), CertifyOptions(methods=("milp",)))
    assert not ball.certified.any()
    tanh = make("tanh", 0)
    net = network.read(tanh, images)
    assert not exact.fits(net, net.intervals(regions.region(Linf(0.1), images[:1]).box))
