# Two commands do everything: `make run` and `make test`. They need Python 3.10 or newer with
# venv and pip, and nothing else; a second call installs nothing again.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run smoke test lint format schema verdicts clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

run: $(VENV)/.installed  ## install, then run the fusion ablation (paper, Table 12)
	$(BIN)/hrnet-search run studies/fusion_ablation.yaml

smoke: $(VENV)/.installed  ## install, then the whole path in under a minute
	$(BIN)/hrnet-search run studies/smoke.yaml

test: $(VENV)/.installed-test  ## install, then run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test  ## put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.installed  ## write docs/schema/*.json anew
	$(BIN)/python -m hrnet_search.study docs/schema

verdicts: $(VENV)/.installed  ## put the reports' verdicts into reports/README.md
	$(BIN)/python -m hrnet_search.report.verdicts reports

clean:  ## remove the environment; runs/ and reports/ stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing hrnet-search and its dependencies into $(VENV) (PyTorch is large) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need ..."
	$(PIP) --editable '.[test]'
	@touch $@
