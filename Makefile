# A fresh machine needs Python 3.11 or 3.12, a JDK 17 or 21 and make. Then: `make run`, `make test`.
# Without a JDK: `make run ENGINE=sail`.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The first of these that is installed and has a version that the pins allow.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.8
READY := $(VENV)/.ready
CONFIG ?= conf/demo.yaml
# Engine of a pipeline, instead of the one in its file: local, or sail (no Java).
ENGINE ?=
DEMO := build/demo/raw
USERS ?= 3000

HAS_JAVA = { test -n "$$JAVA_HOME" || command -v java >/dev/null; }

.PHONY: help setup run test test-slow test-spark lint format lock clean wheel

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment .venv and fetch Delta's jars, once

# Bytecode is compiled once, here. If Python could not write it later, each of Spark's many processes would compile it again.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found: install one, or name it with PYTHON=..."; exit 1; }
	@test "$(ENGINE)" = sail || $(HAS_JAVA) || \
		{ echo "no Java found: install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jdk-headless), set JAVA_HOME, or do without: make run ENGINE=sail"; exit 1; }
	@test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet uv==$(UV_VERSION); }
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@if $(HAS_JAVA); then $(BIN)/python -m gur_spark.install; else echo "no Java: engine sail only"; fi
	@touch $@

run: $(READY) ## Run the whole pipeline on the demo set (or CONFIG=FILE; ENGINE=sail: without Java)
ifeq ($(CONFIG),conf/demo.yaml)
	$(BIN)/python -m gur_spark.synthetic --out $(DEMO) --users $(USERS) --seed 7
endif
	$(BIN)/python jobs/pipeline.py --config $(CONFIG) $(if $(ENGINE),engine=$(ENGINE))

# Tests of both engines run on Spark here. tests/test_sail.py runs them on Sail as well, in a second process, and also runs
# the tests that need any one engine.
test: $(READY) ## Run all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow and not any_engine"

test-slow: $(READY) ## Run the slow tests: whole pipelines, killed processes, a Connect server, notebooks
	$(BIN)/python -m pytest -m "slow and not any_engine"

test-spark: $(READY) ## Run all tests on Spark, also those that `test` runs only on Sail
	$(BIN)/python -m pytest

lint: $(READY) ## Run ruff, mypy --strict, and the test of the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve requirements.lock again from pyproject.toml (hashes, no registry host)
	@test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet uv==$(UV_VERSION); }
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--all-extras --group dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock

wheel: $(READY) ## Build the wheel into dist/
	$(UV) build --quiet --wheel --python $(BIN)/python

clean: ## Remove build/ (demo data, tables, reports); the environment stays
	rm -rf build
