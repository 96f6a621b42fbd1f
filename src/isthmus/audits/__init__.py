"""Audits: run checks on a classifier, keep each result as it comes, go on after an interruption."""

from isthmus.audits.request import DEFAULT_CHECKS, WITH_TRAINING
from isthmus.audits.running import BUDGETS, Audit, Progress, audit

__all__ = ["BUDGETS", "DEFAULT_CHECKS", "WITH_TRAINING", "Audit", "Progress", "audit"]
