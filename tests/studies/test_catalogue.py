"""Studies are found by their files, described without running them, and keep to their contract."""

import subprocess
import sys

import pytest

from isthmus.core.errors import ConfigError
from isthmus.studies import catalogue
from isthmus.studies.study import departures

FIGURES = [f"closer-look/figure-{number}" for number in range(1, 11)]


def test_all_figures_of_the_paper_are_there_in_their_order():
    assert [name for name in catalogue.names() if name.startswith("closer-look/")] == FIGURES


@pytest.mark.parametrize("name", catalogue.names())
def test_a_study_keeps_to_the_contract(name):
    study = catalogue.find(name)
    defaults = study.config()
    assert study.preset("paper") == defaults, "the defaults are the paper's"
    assert {study.preset(scale) == defaults for scale in ("tiny", "small")} <= {True, False}  # they can be read
    declared = {name: (defaults.plain()[name], there) for name, there in defaults.departs.items()}
    assert departures(study.preset("paper"), defaults) == declared
    assert study.question.endswith((".", "?"))


def test_an_unknown_study_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean 'closer-look/figure-2'"):
        catalogue.find("closer-look/figure2")


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_listing_needs_no_torch():
    code = "from isthmus.studies import catalogue\n[catalogue.question(name) for name in catalogue.names()]"
    assert not {"torch", "matplotlib"} & loaded(code)


def test_configs_pages_and_findings_need_no_torch():
    code = "from isthmus.studies import catalogue, page\n[catalogue.find(name) for name in catalogue.names()]"
    assert "torch" not in loaded(code)


def test_departures_are_told_by_dotted_names():
    study = catalogue.find("closer-look/figure-2")
    differs = departures(study.preset("small"), study.config())
    assert differs["training.epochs"] == (40, 200)
    assert differs["model.backbone.hidden"] == ([512, 512], [1024, 1024])
    assert "eps" not in differs
