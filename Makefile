# Keyfob: `make demo` shows that it works, `make test` proves it. Both need Python >= 3.11 and make, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BROKER ?= embedded
export BROKER

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Keyfob needs Python 3.11 or newer (PYTHON=... chooses one)."; exit 1; }
	@echo "Installing Keyfob's pinned dependencies into $(VENV) (a minute or two, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Make .venv from requirements.lock

.PHONY: demo
demo: install ## Play the hospital story on real parts: does it work?
	@$(BIN)/keyfob demo

.PHONY: dev
dev: install ## Start the same stack and leave it running
	@$(BIN)/keyfob dev

.PHONY: test
test: install ## Run every test that needs no containers (BROKER=apache: on Apache Kafka)
	@$(BIN)/python -m pytest tests/unit tests/contract tests/integration -n 2 --dist loadfile
	@$(BIN)/python -m pytest tests/e2e tests/chaos

.PHONY: test-unit
test-unit: install ## Run the tests that need no other process
	@$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile

.PHONY: chaos
chaos: install ## Kill each service twenty times in the middle of its work, and take the broker away
	@KEYFOB_CHAOS_KILLS=20 $(BIN)/python -m pytest tests/chaos

.PHONY: bench
bench: install ## Measure; prints a table and writes build/bench.json
	@$(BIN)/python -m tests.bench

.PHONY: lint
lint: install ## ruff, mypy --strict, import contracts, schema drift, house rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m services.dev.contracts check
	@$(BIN)/python -m tests.house_rules

.PHONY: schemas
schemas: install ## Generate schemas/ from the models
	@$(BIN)/python -m services.dev.contracts write

.PHONY: lock
lock: ## Resolve requirements.lock again from pyproject.toml (needs uv)
	@uv pip compile --universal --python-version 3.11 --generate-hashes --all-extras --no-emit-index-url --no-header --no-annotate --quiet pyproject.toml --output-file requirements.lock

.PHONY: clean
clean: ## Remove what was built; .venv and downloaded tools stay
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
