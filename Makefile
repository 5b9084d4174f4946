# Two commands matter: `make repro` learns an agent from a fresh clone, `make test` checks the house.
#
# PYTHON       the interpreter to make .venv with, 3.11 or 3.12; looked for when not given
# TORCH_INDEX  index to take PyTorch from, e.g. https://download.pytorch.org/whl/cpu (small, no GPU)
#              or https://download.pytorch.org/whl/cu128; without it pip's own configuration decides

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ON_PATH = PATH="$(abspath $(BIN)):$$PATH"
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12)
TORCH_INDEX ?=
TORCH_VERSION := $(shell sed -n 's/^torch==\([^ ;]*\).*/\1/p' requirements.lock)
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1

# An update allocates and frees tensors of some 16 MB. By default glibc maps and unmaps each of them,
# which costs about 20,000 page faults per update; keeping the memory and asking for huge pages makes
# an update 5 to 30 percent faster. Must be in the environment before a process starts. Changes no bits.
ifeq ($(shell uname -s),Linux)
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456
endif

.PHONY: help setup repro study retrain changes gate propose lock-check twice test lint format tests slow ui bench evidence lock clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## make .venv with the locked versions (TORCH_INDEX=... chooses the PyTorch build)

# PyTorch comes first and alone, so that its index never serves another package, and the lock's plain
# `torch==` then accepts whichever build (CPU or CUDA) is there.
$(READY): requirements.lock pyproject.toml
	@if ! $(BIN)/python -c 'import pip; $(FITS)' >/dev/null 2>&1; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(FITS)' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    for python in $(PYTHONS); do seen="$${seen:-}$$python: $$("$$python" --version 2>&1 | head -n 1); "; done; \
	    echo "make setup: found $${seen}allowed: Python 3.11 or 3.12 with venv (make setup PYTHON=/path/to/python3.11)" >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),-c requirements.lock) torch==$(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

repro: setup  ## run the whole pipeline, then say what was learned and where to look
	$(ON_PATH) dvc repro
	$(BIN)/dreamer summary

retrain: setup  ## take from the remote what was made before, run what is missing, push it (REMOTE=... instead of .dvc/config's)
	$(ON_PATH) .ci/retrain

changes: setup  ## parameters, metrics, plots and report of this workspace against BASE (HEAD)
	$(ON_PATH) .ci/changes

gate: setup  ## let the agent challenge the champion of the registry; the verdict also into reports/changes.md
	$(ON_PATH) .ci/gate

propose: setup  ## push the new dvc.lock as a branch and open a pull request about it (needs gh)
	$(ON_PATH) .ci/propose

lock-check: setup  ## is dvc.lock of this code and these parameters?
	$(ON_PATH) .ci/lock_check

twice: setup  ## the pipeline in seconds, in two fresh copies: equal locks
	$(BIN)/python -m pytest -q tests/pipeline/test_dvc_repro.py

study: setup  ## tune CartPole on a grid of 27 points, two at a time; again: go on with it (APPLY=1 writes the winner down)
	$(BIN)/dreamer tune --preset tune_cartpole --study cartpole-grid --workers $(or $(WORKERS),2) $(if $(APPLY),--apply)

test: setup lint tests  ## lint, types and the fast tests: what CI runs

lint: setup  ## ruff, formatting, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files)

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tests: setup  ## the fast tests
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8

slow: setup  ## every test
	$(BIN)/python -m pytest

ui: setup  ## MLflow in the browser at http://127.0.0.1:5000
	MLFLOW_TRACKING_URI=sqlite:///mlflow.db $(BIN)/dreamer views
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///mlflow.db

bench: setup  ## measure the speed of one update, what modules and modalities add, and replay (a served agent: python -m benchmarks.serving)
	$(BIN)/python -m benchmarks.learner --workload W1 && $(BIN)/python -m benchmarks.learner --workload W2 && $(BIN)/python -m benchmarks.learner --workload modules --threads 1 && $(BIN)/python -m benchmarks.learner --workload senses --threads 1 && $(BIN)/python -m benchmarks.replay

evidence: setup  ## runs that show what is learned; finished ones are skipped (ONLY=question, question/arm or preset; LIST=1 says what is there)
	$(BIN)/python -m benchmarks.evidence $(if $(ONLY),--only $(ONLY)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(LIST),--list)

lock: setup  ## resolve pyproject.toml afresh into requirements.lock (TORCH_VERSION=... moves PyTorch, KEEP=1 only adds)
	$(BIN)/python .ci/lock.py $(TORCH_VERSION) $(if $(KEEP),--keep)

clean:  ## remove the environment and the tools' caches; data, models, records and checkpoints stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
