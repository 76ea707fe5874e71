# `make help` lists the targets. Everything runs in .venv, made from requirements.lock on first use.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export DVC_NO_ANALYTICS := true
export PYTHONUTF8 := 1

.PHONY: help env repro test test-slow real paper weights sync ui team team-user lint licences audit lock
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@test -e .git || { echo "error: this folder is no git clone (a ZIP download?), and DVC needs one: get it by git clone"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off -q --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --progress-bar off -q --no-deps -e .
	@touch $@

env: $(READY)  ## Build the environment in .venv (about 5 minutes and 7 GB, once)

# Over another number of threads sums differ in their last bits: another model, and another dvc.lock
repro: export OMP_NUM_THREADS := 1
repro: $(READY)  ## Build the environment, then run the whole graph: images to registered models
	unstained repro
	unstained sync
	unstained summary

COVERAGE := .cache/coverage.json
test: lint  ## Build the environment, then check style and types, run the tests and say how much of src they ran
	@mkdir -p $(dir $(COVERAGE))
	python -m slipcover --source src --json --out $(COVERAGE) -m pytest -n 2 --dist loadfile -m "not slow"
	@python -c "import json; print('lines of src that ran in the tests\' own processes:', json.load(open('$(COVERAGE)'))['summary']['percent_covered_display'] + '%')"

test-slow: $(READY)  ## The tests that take minutes
	pytest -m slow

# Handed over by the environment, so that no shell reads what a folder is called
DATA =
RECIPE = stain
NAME =
SET =
export DATA RECIPE NAME
real: $(READY)  ## Real images: make real DATA=FOLDER [RECIPE=stain|head|modern|paper] [NAME=...] [SET="-S model.arch=..."]
	@test -n "$$DATA" || { echo "usage: make real DATA=FOLDER (images.csv in it says what they are)"; exit 2; }
	unstained real "$$DATA" --recipe "$$RECIPE" --name "$$NAME" $(SET)

ARCHS ?= resnet18 squeezenet1_1 inception_v3
paper: $(READY)  ## The paper's three architectures with its recipe, one after another, and their comparison
	@test "$$(git rev-parse --is-shallow-repository)" = false || { echo "error: a shallow clone loses queued experiments: git fetch --unshallow"; exit 2; }
	for arch in $(ARCHS); do \
	  dvc exp run --queue --name paper-$$arch -S model.arch=$$arch $$(cat presets/paper.txt) $(SET) || exit 1; done
	dvc queue start --jobs 1
	while dvc queue status | grep -qE 'Queued|Running'; do sleep 10; done
	dvc queue status
	unstained compare $(addprefix paper-,$(ARCHS)) --out reports/paper

weights: $(READY)  ## Resolve the pretrained weights again (after connecting to a network)
	dvc repro --single-item --force weights@filter weights@model

sync: $(READY)  ## Rebuild in MLflow what it lacks of the outputs at hand
	unstained sync

PORT ?= 5000
ui: $(READY)  ## Open the MLflow UI on http://127.0.0.1:5000 (PORT=... for another)
	@python -c "from src.common.tracking.relocate import use_store; use_store()"
	@echo "open http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning (experiment unstained, Views: Results)"
	mlflow server --backend-store-uri "sqlite:///$$PWD/mlruns/mlflow.db" --artifacts-destination "$$PWD/mlruns/artifacts" --host 127.0.0.1 --port $(PORT)

team: $(READY)  ## The shared set-up on loopback: MLflow on PostgreSQL and S3, and an S3 remote (docs/team.md)
	python -m team.start

team-user: $(READY)  ## A user of the running shared set-up: make team-user WHO=anna
	@python -m team.clients $(WHO)

lock: $(READY)  ## Resolve requirements.txt again, with hashes, for every platform
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" requirements.txt -o requirements.lock

lint: $(READY)  ## Check style, and types where pyproject.toml names files
	ruff check . && ruff format --check . && python -m mypy

licences: $(READY)  ## Write docs/licences.md: the licence of every package in .venv
	pip-licenses --format=markdown --ignore-packages unstained --output-file=docs/licences.md

audit: $(READY)  ## Ask a public database for known vulnerabilities of the packages in .venv
	@command -v uvx > /dev/null || { echo "audit: needs uv (pip install uv)"; exit 2; }
	@uvx pip-audit@2.10.1 -s osv --path .venv/lib/python3.11/site-packages || \
	  { echo "audit: not passed: see above what is vulnerable, or that the database did not answer (offline?)"; exit 1; }
