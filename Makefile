PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.installed
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/.installed
# make CPU=1 ...: an environment without NVIDIA's libraries and Triton, for machines without a GPU
LOCK := requirements$(if $(CPU),-cpu).lock
SIZE := $(if $(CPU),2.5,6) GB
GPU_ONLY := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl nvidia-cuda-nvrtc \
	nvidia-cudnn-cu13 nvidia-cufft nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
	nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
STUDIES := xception_vs_inception residual_connections pointwise_activation
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env git repro repro-all test suite check lint schema readme ui verify docs lock torture bench

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make .venv from the lock, if it is missing or stale (CPU=1: 2.5 GB, no GPU)

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sepablate needs Python 3.11 or later, not %d.%d; try make PYTHON=python3.11" % sys.version_info[:2])'
	@$(if $(CPU),type g++ nm objdump > /dev/null || { echo "make CPU=1 needs g++" >&2; exit 2; })
	@echo "Installing the locked environment into $(VENV): about 3 minutes and $(SIZE), once"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(if $(CPU),$(VENV)/bin/python -m sepablate.execution.gpu_stubs)
	@touch $@

# Before gigabytes are installed: DVC needs a repository, which a downloaded archive is not. Says their size.
git:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "sepablate: not a git repository; get the project by git clone" >&2; exit 2; }
	@test -e $(STAMP) || echo "Downloads, once: the environment (about 3 minutes and $(SIZE), into $(VENV)), then 31 MB of images"

repro: git $(STAMP) ## Train and report the paper's ablations (dvc repro); SCALE=smoke: once, at that scale
ifdef SCALE
	sepablate fetch --scale $(SCALE)
	sepablate train --all --scale $(SCALE)
	@set -e; for study in $(STUDIES); do sepablate study $$study --scale $(SCALE) --no-mlflow; done
	sepablate report $(STUDIES) --scale $(SCALE)
else
	dvc repro
	@sepablate publish || true
endif

repro-all: git $(STAMP) ## The same, and the controls (dvc repro --all-pipelines)
	dvc repro --all-pipelines
	@sepablate publish || true

test: $(STAMP) ## Check and test everything (10 to 15 minutes on two cores)
	@$(MAKE) --no-print-directory -j 2 lint suite

suite: $(STAMP)
	MAKEFLAGS= pytest -n 3

torture: $(STAMP) ## Kill and damage a smoke pipeline for 20 minutes; count what is lost
	PYTHONPATH=tests python tests/faults/torture.py

bench: $(BENCH_STAMP) ## Time the suite and its peers, in at most 20 minutes
	$(BENCH)/bin/python -m sepablate bench

# Only the peers; all else is found in $(VENV), of which the bench lock holds the same versions.
$(BENCH_STAMP): requirements-bench.lock $(STAMP)
	@echo "Installing the benchmark's peers into $(BENCH): about a minute and 1 GB, once"
	@rm -rf $(BENCH)
	@$(VENV)/bin/python -m venv $(BENCH)
	@$(VENV)/bin/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
		> "$$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	@$(BENCH)/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

docs: $(DOCS_STAMP) ## Build the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "written: site/index.html"

$(DOCS_STAMP): requirements-docs.lock
	@echo "Installing MkDocs into $(DOCS): a few seconds and 100 MB, once"
	@rm -rf $(DOCS)
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

check: lint ## Lint, format, types and the fast tests
	pytest -m "not slow"

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy

schema: $(STAMP) ## Regenerate params.schema.json, with which editors check params.yaml
	python -m sepablate.scales > params.schema.json

readme: $(STAMP) ## Write the README's lines on the committed results
	python -m sepablate.report.readme

ui: $(STAMP) ## Browse the runs in MLflow on 127.0.0.1:5000
	sepablate ui

verify: $(STAMP) ## Check that the committed results follow from the runs
	sepablate verify

COMPILE := uv pip compile --universal --python-version 3.11 --quiet --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links

lock: $(STAMP) ## Regenerate the locks from pyproject.toml (needs uv)
	$(COMPILE) pyproject.toml --extra test --extra cluster -o requirements.lock
	$(COMPILE) pyproject.toml --extra test --extra cluster -c requirements.lock \
		$(GPU_ONLY:%=--no-emit-package %) -o requirements-cpu.lock
	$(COMPILE) pyproject.toml --extra bench -c requirements.lock -o requirements-bench.lock
	$(COMPILE) --group docs -o requirements-docs.lock
