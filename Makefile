# Every chore has one word. `make demo` and `make test` each work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# A package with a file OWN_ENV needs an environment of its own and is not installed here.
OWN_ENV := $(patsubst %/OWN_ENV,%/pyproject.toml,$(wildcard plugins/*/OWN_ENV))
PLUGINS := $(patsubst %/pyproject.toml,%,$(filter-out $(OWN_ENV),$(wildcard plugins/*/pyproject.toml)))

# Passive waiting: threads that spin for each other are ten times slower where cores are shared.
TESTS := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --durations=10

.DEFAULT_GOAL := help
.PHONY: help env demo test lint types doctest bench docs release lowest newest mediapipe browser demo-quick check

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

env: $(READY) ## make .venv with the package, its tools and the plugins; at once when nothing changed

# The tool that builds our packages comes first; else pip fetches it anew for each of them.
# --no-compile: Python compiles each file that it imports, and most files are never imported. It must be
# allowed to keep what it compiles: else every process compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
$(READY): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[dev]' $(addprefix --editable ,$(PLUGINS))
	@touch $@

demo: env ## synthetic faces: find wrong labels, correct them, train again: a table, a picture, a page; 4 to 7 minutes
	OMP_WAIT_POLICY=passive $(BIN)/python -m examples.demo

# Two processes of one thread: quicker than one of two, and a file's fixtures are made once. The files keep
# their order: sorted by their number of tests, long files of few tests would be last and run by themselves.
# For another number of threads: OMP_NUM_THREADS=2 make test.
test: env ## run the tests, the plugins' among them
	OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(TESTS) --numprocesses 2 --dist loadfile --no-loadscope-reorder tests $(PLUGINS)

lint: env ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: env ## check types, strictly
	$(BIN)/mypy

doctest: env ## run the examples in the docstrings
	$(TESTS) --doctest-modules src $(addsuffix /src,$(PLUGINS))

bench: env ## measure speed and memory against the literal and the plain forms
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python benchmarks/speed.py

docs: env ## build the site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

release: env ## build every package into dist/, install all in an empty environment, run the README's code
	$(BIN)/python .ci/release.py

lowest: env ## run the tests with the lowest declared versions, in .venv-lowest (LOWEST=python3.11)
	rm -rf .venv-lowest
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python .ci/lowest.py $(or $(LOWEST),python3.11) .venv-lowest

newest: ## run the tests with the newest versions, in .venv-newest (PYTHON=python3.13)
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]' $(addprefix --editable ,$(PLUGINS))
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv-newest/bin/python -m pytest --numprocesses 2 --dist loadfile tests $(PLUGINS)

mediapipe: ## make .venv-mediapipe for the companion tool (1 GB, Python 3.10 to 3.12), run its tests
	test -x .venv-mediapipe/bin/python || $(PYTHON) -m venv .venv-mediapipe
	.venv-mediapipe/bin/python -m pip install --quiet --editable 'plugins/robustfer-mediapipe[test]'
	cd plugins/robustfer-mediapipe && ../../.venv-mediapipe/bin/python -m pytest

browser: ## install Chromium, in which the review page is tested (Debian, as root)
	command -v chromedriver || (apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver)

demo-quick: env ## the demo, one epoch on few faces
	OMP_WAIT_POLICY=passive $(BIN)/python -m examples.demo --epochs 1 --train-faces 640 --test-faces 280 --output runs/demo-quick

check: lint types doctest test docs demo-quick ## everything that CI runs
