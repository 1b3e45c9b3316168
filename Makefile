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

PARTS := tests/unit tests/contract tests/integration
WHOLE := tests/e2e tests/chaos
# Each worker may run two brokers, and Apache Kafka's keep a core busy.
WORKERS := $(if $(filter apache,$(BROKER)),2,3)

.PHONY: test
test: install ## Run every test that needs no containers (BROKER=apache: on Apache Kafka)
	@mkdir -p build && rm -f build/failed-*
	@$(BIN)/python -m pytest $(PARTS) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -o cache_dir=build/cache || touch build/failed-parts
	@$(BIN)/python -m pytest $(WHOLE) || touch build/failed-whole
	@test ! -e build/failed-parts -a ! -e build/failed-whole

.PHONY: test-again
test-again: install ## Run again what failed in the last `make test`: single tests alone, a story from its start
	@test ! -e build/failed-parts || $(BIN)/python -m pytest $(PARTS) -o cache_dir=build/cache --last-failed
	@test ! -e build/failed-whole || $(BIN)/python -m pytest $(WHOLE)

# Where the environment forbids bytecode, as in many containers, each worker would compile all tests anew.
.PHONY: test-unit
test-unit: install ## Run the tests that need no other process
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/unit -n 2 --dist loadfile

.PHONY: test-thorough
test-thorough: install ## Run the unit tests with many more examples: a million seals, 100 MB without a false redaction
	@KEYFOB_THOROUGH=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/unit -n 2 --dist loadfile

.PHONY: chaos
chaos: install ## Kill each service twenty times in the middle of its work, and take the broker away
	@KEYFOB_CHAOS_KILLS=20 $(BIN)/python -m pytest tests/chaos

.PHONY: leak-check
leak-check: install ## Use values of every kind, in work and in crashes, then look for them everywhere
	@$(BIN)/python -m pytest tests/leaks

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
