"""Audits: run checks on a classifier, store each result, and resume after an interruption."""

from isthmus.audits.options import AuditOptions, Progress
from isthmus.audits.request import DEFAULT_CHECKS, WITH_TRAINING
from isthmus.audits.result import Audit
from isthmus.audits.running import BUDGETS, audit

__all__ = ["BUDGETS", "DEFAULT_CHECKS", "WITH_TRAINING", "Audit", "AuditOptions", "Progress", "audit"]
