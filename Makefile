PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env repro repro-all test check lint ui lock torture

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make .venv from requirements.lock, if it is missing or stale

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sepablate needs Python 3.11 or later, not %d.%d; try make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing the locked environment into $(VENV): about 3 minutes and 6 GB, once"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: $(STAMP) ## Train and report the paper's three ablations (dvc repro)
	dvc repro

repro-all: $(STAMP) ## The same, and the controls (dvc repro --all-pipelines)
	dvc repro --all-pipelines

test: lint ## Check and test everything (under 10 minutes on two cores)
	pytest

torture: $(STAMP) ## Kill and damage a smoke pipeline for 20 minutes; count what is lost
	python tests/torture.py

check: lint ## Lint, format, types and the fast tests
	pytest -m "not slow"

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy

ui: $(STAMP) ## Browse the runs in MLflow on 127.0.0.1:5000
	sepablate ui

lock: $(STAMP) ## Regenerate requirements.lock from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --extra test --extra cluster --quiet \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		-o requirements.lock pyproject.toml
