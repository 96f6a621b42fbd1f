"""Audits: run checks on a classifier, keep each result as it comes, go on after an interruption."""

from isthmus.auditing.asked import DEFAULT_CHECKS, WITH_TRAINING
from isthmus.auditing.running import BUDGETS, Audit, Progress, audit

__all__ = ["BUDGETS", "DEFAULT_CHECKS", "WITH_TRAINING", "Audit", "Progress", "audit"]
