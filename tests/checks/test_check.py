"""What all checks have in common: frozen classes, found by name, imported on first use."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from isthmus import checks
from isthmus.core import registry
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError

CLASSES = [getattr(checks, name) for name in checks.__all__ if name not in ("Check", "Context")]


def test_every_check_is_exported_and_found_by_its_name():
    names = {cls.model_fields["name"].default: cls for cls in CLASSES}
    assert sorted(names) == registry.names("checks")
    for name, cls in names.items():
        assert registry.load("checks", name) is cls
        assert issubclass(cls, checks.Check)
        assert issubclass(cls, Component)


def test_options_are_frozen_and_typing_errors_are_refused():
    with pytest.raises(ValidationError):
        checks.Calibration().bins = 3
    with pytest.raises(ConfigError, match="Did you mean 'bins'"):
        checks.Calibration(bin=3)


def test_a_class_without_run_is_no_check():
    class Empty(checks.Check):
        name: str = "empty"

    with pytest.raises(TypeError, match="run"):
        Empty()


def test_the_package_is_imported_without_torch():
    code = "import sys, isthmus.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Calibration"):
        _ = checks.Calibrate
