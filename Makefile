# `make help` lists the targets. Everything runs in .venv, made from requirements.txt on first use.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export DVC_NO_ANALYTICS := true

.PHONY: help env repro test test-slow real paper weights sync ui lint
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(READY): requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off -q torch==2.14.1 torchvision==0.29.1 -c constraints.txt
	$(BIN)/python -m pip install --progress-bar off -q -r requirements.txt
	$(BIN)/python -m pip install --progress-bar off -q --no-deps -e .
	@touch $@

env: $(READY)  ## Build the environment in .venv (about 5 minutes and 7 GB, once)

repro: $(READY)  ## Build the environment, then run the whole graph: images to registered models
	dvc repro
	unstained sync
	unstained summary

test: $(READY)  ## Build the environment, then run the tests
	pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(READY)  ## The tests that take minutes
	pytest -m slow

DATA ?=
NAME ?= real
# annotations/NAME.csv of a folder NAME if there is one (as of mcf7), else annotations/folder.csv
ANNOTATIONS ?= $(firstword $(wildcard annotations/$(notdir $(abspath $(DATA))).csv) annotations/folder.csv)
real: $(READY)  ## Real images: make real DATA=FOLDER (see the README)
	@test -n "$(DATA)" || { echo "usage: make real DATA=FOLDER (images.csv in it says what they are)"; exit 2; }
	unstained digest "$(abspath $(DATA))"
	dvc exp run --name $(NAME) -S dataset.source=folder -S dataset.path="$(abspath $(DATA))" \
	  -S "dataset.partitions=[$$(unstained partitions "$(abspath $(DATA))")]" \
	  -S filter.annotations=$(ANNOTATIONS) $$(cat presets/real.txt)
	unstained sync
	unstained summary

paper: $(READY)  ## Queue the paper's recipe with its three architectures, then run them one by one
	dvc exp run --queue -S model.arch=resnet18,squeezenet1_1,inception_v3 $$(cat presets/paper.txt)
	dvc queue start --jobs 1
	dvc queue logs --follow $$(dvc queue status | awk '/Running/{print $$1; exit}') || true
	@echo "dvc queue status shows how far they are; dvc exp show compares them"

weights: $(READY)  ## Resolve the pretrained weights again (after connecting to a network)
	dvc repro --single-item --force weights@filter weights@model

sync: $(READY)  ## Rebuild in MLflow what it lacks of the outputs at hand
	unstained sync

PORT ?= 5000
ui: $(READY)  ## Open the MLflow UI on http://127.0.0.1:5000 (PORT=... for another)
	mlflow server --backend-store-uri sqlite:///$(CURDIR)/mlruns/mlflow.db --artifacts-destination $(CURDIR)/mlruns/artifacts --host 127.0.0.1 --port $(PORT)

lint: $(READY)  ## Check style
	ruff check . && ruff format --check .
