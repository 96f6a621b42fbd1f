"""Three audit pages for the documentation: a claim that holds, one that is overstated, and a broken defence.

    python -m benchmarks.gallery [--out docs/gallery]

Trains three small networks on scikit-learn's digits and audits each on all 359 test images, seed 0, in two and a half
minutes on one core, without a network connection. The pages are ``holds.html``, ``overstated.html`` and
``broken.html``. A verdict that differs from the name of its page is an error.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

import isthmus
from benchmarks.illusions import Quantised
from isthmus.core.recipe import load_recipe
from isthmus.data.images import as_float
from isthmus.data.loading import load

RECIPES = Path(__file__).parents[1] / "examples" / "recipes"


@dataclass(frozen=True)
class Exhibit:
    """One page.

    Attributes:
        verdict: what the audit must find; also the name of the page.
        title: the model's name on the page.
        recipe: file name of the recipe, with overrides.
        threat: norm and ε.
        defence: wraps the trained network; None for the network alone.
        claim: suite whose robust accuracy is claimed; None for the audit's own baseline attack.
    """

    verdict: str
    title: str
    recipe: str
    threat: str
    overrides: tuple[str, ...] = field(default=())
    defence: Callable[[nn.Module], nn.Module] | None = None
    claim: str | None = None


EXHIBITS = (
    Exhibit("holds", "CEB, adversarially trained", "digits-adversarial.yaml", "linf:0.1"),
    Exhibit("overstated", "CEB, FGSM accuracy claimed", "digits-ceb.yaml", "linf:0.1", claim="fgsm"),
    Exhibit(
        "broken",
        "pixels rounded to 8 levels",
        "digits-ceb.yaml",
        "linf:0.2",
        overrides=("objective=deterministic",),
        defence=Quantised,
    ),
)


def audited(exhibit: Exhibit, folder: Path) -> isthmus.Audit:
    """Train the network of an exhibit, and audit it on digits.

    Raises:
        RuntimeError: the verdict differs from the exhibit's.
    """
    recipe = load_recipe(RECIPES / exhibit.recipe, exhibit.overrides)
    run = isthmus.train(recipe, out=folder / exhibit.verdict, progress=False)
    model = isthmus.load(run.path)
    if exhibit.defence is not None:
        model = exhibit.defence(model).eval()
    digits = load("digits")
    images, labels = as_float(digits.test.images), digits.test.labels
    options = isthmus.AuditOptions(name=exhibit.title, data="digits (test)")
    claimed = None
    if exhibit.claim is not None:
        claimed = isthmus.robust_accuracy(model, images, labels, exhibit.threat, exhibit.claim).accuracy
    audit = isthmus.audit(model, images, labels, exhibit.threat, claimed=claimed, options=options)
    if audit.verdict.status != exhibit.verdict:
        raise RuntimeError(f"{exhibit.title}: the verdict is {audit.verdict.status}: {audit.verdict.reason}")
    return audit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder for the pages")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for exhibit in EXHIBITS:
            audit = audited(exhibit, Path(folder))
            page = audit.save(given.out / f"{exhibit.verdict}.html")
            print(f"{page} ({page.stat().st_size / 1e6:.1f} MB): {audit.verdict.reason}", flush=True)


if __name__ == "__main__":
    main()
