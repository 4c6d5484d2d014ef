# Needs Python >= 3.10 with venv, git and make; .venv and all that is in it are made
# here. ARGS is handed on: make demo ARGS="--attendees 12 --idle-timeout 20s"
PYTHON ?= python3
ARGS ?=
# How many workers run the tests. With 0 pytest runs them itself, as a debugger needs.
JOBS ?= logical

VENV := .venv
BIN := $(VENV)/bin
DEV := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs
BENCH := $(VENV)/.installed-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

HUB5 := .venv-hub5

# In the order that tests/conftest.py gives them.
WORKERS := -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The frameworks that the import hook is tested with, as pip is to install them. A
# variable may bring options of pip's along: where it finds PyTorch's build for CPUs, say.
FRAMEWORKS := torch tensorflow jax onnxruntime
TORCH ?= torch==2.13.0 numpy
TENSORFLOW ?= tensorflow-cpu==2.21.0
JAX ?= jax[cpu]==0.10.2
ONNXRUNTIME ?= onnxruntime==1.31.1
IN_torch = $(TORCH)
IN_tensorflow = $(TENSORFLOW)
IN_jax = $(JAX)
IN_onnxruntime = $(ONNXRUNTIME)
IN_FRAMEWORKS := $(FRAMEWORKS:%=.venv-%/.installed)

.PHONY: help demo test test-hub5 test-frameworks bench docs screenshots lint clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo   a GPU workshop on this machine, without a GPU'
	@echo 'make test   the tests'
	@echo 'make test-hub5  what touches the hub, on the newest JupyterHub 5'
	@echo 'make test-frameworks  the caps, with real frameworks in environments of their own'
	@echo 'make bench  the benchmarks'
	@echo 'make docs   the documentation, into docs/_build/html'
	@echo 'make screenshots  the pictures of the dashboard in the documentation, with Chromium'
	@echo 'make lint   formatting, types and import contracts'
	@echo 'make clean  remove .venv and what was built'
	@echo 'ARGS="..."  is handed on; PYTHON=... chooses the Python'

# `exec`: what make starts is the program itself, so that signals reach it.
demo: $(DEV)
	@exec $(BIN)/gpuworkshop demo $(ARGS)

test: $(DEV)
	@exec $(BIN)/python -m pytest $(WORKERS) $(ARGS)

# What a browser draws from a feed is the same on any hub.
DRAWN := test_accessibility test_attendee_page test_driver_gone test_organiser_page \
  test_organiser_truth test_wall

test-hub5: $(HUB5)/.installed
	@exec $(HUB5)/bin/python -m pytest tests/hub tests/service tests/integration \
	  $(DRAWN:%=--ignore=tests/service/dashboard/%.py) \
	  -m 'not docker and not lab' $(WORKERS) $(ARGS)

test-frameworks: $(DEV) $(IN_FRAMEWORKS)
	@exec $(BIN)/python -m pytest tests/notebook/test_real_frameworks.py \
	  tests/notebook/test_where_caps_reach.py $(ARGS)

bench: $(BENCH)
	@exec $(BIN)/python -m benchmarks $(ARGS)

docs: $(DOCS)
	@exec $(BIN)/python -m sphinx -W -n -b html docs docs/_build/html $(ARGS)

screenshots: $(DEV)
	@exec $(BIN)/python docs/screenshots.py $(ARGS)

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	@rm -rf $(VENV) $(HUB5) $(FRAMEWORKS:%=.venv-%) build dist docs/_build \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.* *.egg-info

# stdout belongs to the program: everything here speaks on stderr.
$(DEV): setup.cfg pyproject.toml $(BIN)/python
	@echo 'Installing into $(VENV) ...' >&2
	@$(PIP) install -e '.[demo,test]' >&2
	@touch $@

$(DOCS): $(DEV)
	@echo 'Installing what builds the documentation into $(VENV) ...' >&2
	@$(PIP) install -e '.[docs]' >&2
	@touch $@

$(BENCH): $(DEV)
	@echo 'Installing what the benchmarks compare with into $(VENV) ...' >&2
	@$(PIP) install -e '.[bench]' >&2
	@touch $@

$(HUB5)/.installed: $(DEV)
	@echo 'Installing JupyterHub 5 into $(HUB5) ...' >&2
	@$(BIN)/python -m venv $(HUB5) >&2
	@$(HUB5)/bin/python -m pip --disable-pip-version-check --quiet \
	  install -e '.[demo,test]' 'jupyterhub==5.*' >&2
	@touch $@

$(IN_FRAMEWORKS): .venv-%/.installed: | $(DEV)
	@echo 'Installing $(IN_$*) into .venv-$* ...' >&2
	@$(BIN)/python -m venv .venv-$* >&2
	@.venv-$*/bin/python -m pip --disable-pip-version-check --quiet \
	  install ipykernel $(IN_$*) >&2
	@touch $@

$(BIN)/python:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo '$(PYTHON) is not there. Name one: make PYTHON=/path/to/python3.' >&2; \
	  exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$$('$(PYTHON)' --version) is too old: this needs 3.10 or later." \
	    'Name one: make PYTHON=/path/to/python3.' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' || { \
	  echo 'This Python cannot make virtual environments: install its venv' \
	    'package (Debian and Ubuntu: apt install python3-venv).' >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV) >&2 || { rm -rf $(VENV); exit 1; }
