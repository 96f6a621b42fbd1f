"""The result of an audit: its verdict, its numbers, its plots, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core import files
from isthmus.core.display import Figure
from isthmus.core.errors import ConfigError, shown, unknown
from isthmus.core.format import STATUSES, in_words, size, threat_title
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.results import AuditRecord
from isthmus.core.types import Caution, CheckResult, Metric, Status
from isthmus.diagnosis.verdict import Verdict
from isthmus.report import page
from isthmus.report.citation import citation
from isthmus.report.loading import AuditedModel, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

EXAMPLES = "examples"
"""What :meth:`Audit.plot` calls the adversarial examples of the check ``robustness``."""
_MOST_EXAMPLES = 8


@dataclass(frozen=True, repr=False)
class Audit(Summarized):
    """What an audit found.

    Attributes:
        record: the inputs and settings of the audit.
        results: a :class:`isthmus.core.types.CheckResult` for every check, by name.
    """

    record: AuditRecord
    results: dict[str, CheckResult]

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What a look at the classifier gave before any check ran: errors first, then warnings and notes."""
        return self.record.cautions

    @property
    def verdict(self) -> Verdict:
        """Whether the robust accuracy is genuine, as the check ``diagnosis`` found.

        Raises:
            ConfigError: this audit was made without that check, or the check was skipped or ended with an error.
        """
        result = self.results.get("diagnosis")
        if result is None or "verdict" not in result.details:
            ended = "was skipped" if result is not None and result.status is Status.SKIPPED else "ended with an error"
            cause = f" It {ended}: {result.reason}" if result is not None else ""
            raise ConfigError(f'This audit has no verdict; the check "diagnosis" gives it.{cause}')
        return Verdict.model_validate(result.details["verdict"])

    @property
    def robust_accuracy(self) -> Metric:
        """The robust accuracy to cite, with n and interval: the verdict's corrected one, still an upper bound.

        Raises:
            ConfigError: this audit has no verdict.
        """
        return self.verdict.corrected_metric

    @property
    def certified_accuracy(self) -> Metric:
        """The certified lower bound on the robust accuracy in mean mode, with n and interval.

        Raises:
            ConfigError: the check ``certificate`` did not run, or was skipped.
        """
        result = self.results.get("certificate")
        found = None if result is None else next(iter(result.metrics.select("certified_accuracy")), None)
        if found is None:
            cause = "" if result is None else f" {result.reason}"
            raise ConfigError(f'This audit has no certified accuracy; the check "certificate" gives it.{cause}')
        return found

    @property
    def citation(self) -> str:
        """What to cite: the robust accuracy with threat, data, interval, n, version and seed, and the verdict.

        Raises:
            ConfigError: this audit has no verdict.
        """
        _ = self.verdict
        return citation(self._audited()).replace("\u00a0", " ")

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows of all metrics: model, check, name, coordinates, value, unit, n, interval and note."""
        return [
            {"model": self.record.model, "check": check, **row}
            for check, result in self.results.items()
            for row in result.metrics.rows()
        ]

    def to_dataframe(self) -> Any:
        """The :meth:`rows` as a pandas DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        return dataframe(self.rows(), "rows()")

    def plot(self, what: str = "robustness") -> tuple[Canvas, Any]:
        """Plot a check's first figure, or adversarial examples.

        ``"robustness"`` plots robust accuracy against ε, ``"calibration"`` the reliability diagram, and ``"examples"``
        the first eight adversarial examples: original, adversarial image, and their difference enlarged.

        Args:
            what: a check of this audit that has a figure, or ``"examples"``.

        Returns:
            The figure and its axes; for examples an array of 3 rows with a column for each example.

        Raises:
            ConfigError: this audit has no such plot.
        """
        from isthmus.core import plots

        figures = self._figures()
        robustness = self.results.get("robustness")
        stored = robustness.details.get("gallery", []) if robustness is not None else []
        rows = [row for row, one in enumerate(stored) if one["predicted"] is not None][:_MOST_EXAMPLES]
        examples = [stored[row] for row in rows]
        if what == EXAMPLES and robustness is not None and examples:
            names = ("gallery_original", "gallery_adversarial")
            originals, adversarials = (robustness.arrays[name][rows] / 255 for name in names)
            titles = [
                (f"image {one['index']}, class {one['label']}", f"class {one['predicted']}, ε = {one['eps']:.3g}")
                for one in examples
            ]
            return plots.draw_examples(originals, adversarials, titles)
        if what not in figures:
            raise ConfigError(unknown("plot of this audit", what, [*figures, *([EXAMPLES] if examples else [])]))
        return plots.draw(figures[what])

    def save(self, path: str | Path) -> Path:
        """Write the page of this audit, one self-contained HTML file."""
        target = Path(path)
        files.write_bytes(target, page.render([self._audited()]).encode())
        return target

    def _audited(self) -> AuditedModel:
        """This audit as the package ``report`` takes it."""
        return AuditedModel(self.record.model, None, self.record.provenance, self.record, self.results)

    def _figures(self) -> dict[str, Figure]:
        """The first figure of each check that has one."""
        sections = page.sections([self._audited()])
        found = {
            check: [block for block in each.blocks if isinstance(block, Figure)] for check, each in sections.items()
        }
        return {check: figures[0] for check, figures in found.items() if figures}

    @property
    def _threat(self) -> str:
        return threat_title(str(self.record.settings["threat"]))

    def _summary(self) -> dict[str, str]:
        try:
            verdict = f"{self.verdict.status}; robust accuracy {in_words(self.robust_accuracy)}"
        except ConfigError:
            verdict = "none"
        cautions = [f"{caution.level}: {caution.text}" for caution in self.cautions if caution.level != "note"]
        return {
            "Audit": f"{self.record.model} on {self.record.data}, {self._threat}, {size(self.record.n)}",
            "verdict": verdict,
            "checks": ", ".join(f"{check}: {STATUSES[result.status]}" for check, result in self.results.items()),
            **({"cautions": " ".join(cautions)} if cautions else {}),
        }


def audited_model(given: Audit | str | Path, name: str) -> AuditedModel:
    """An audit, or the folder of one, as the package ``report`` takes it.

    Raises:
        ConfigError: something else, called ``name`` in the message.
        FileError: the folder holds no audit.
    """
    if isinstance(given, Audit):
        return given._audited()
    if isinstance(given, str | Path):
        return load(given)
    raise ConfigError(f"{name} must be the result of isthmus.audit or the folder of an audit; got {shown(given)}.")
