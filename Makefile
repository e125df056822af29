# Everything starts from Python 3.11 and make; `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

export PYTHON ?= python3.11
BIN := .venv/bin
COMPAT_BIN := .venv-compat/bin
READY := .venv/.ready
COMPAT_READY := .venv-compat/.ready
AI_READY := .venv-ai/.ready

# make test T=tests/core K=expired
T ?= tests
K ?=
PYTEST := -m pytest $(T) $(if $(K),-k "$(K)")
# Most tests wait for servers: four at a time, in the groups and the order of tests/conftest.py.
# A process that dies is not replaced: xdist can wait for ever for one that was.
PARALLEL := -n 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

BENCH ?=
AUTO ?=

.PHONY: help
help: ## list the targets
	@sed -n -E 's/^([a-z-]+):.*## (.*)$$/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(READY) ## an embedded Airflow and the whole flow on staged data; AUTO=1 answers by itself and attacks every promise
	@$(BIN)/python -m demo $(if $(AUTO),--auto)

.PHONY: test
test: $(READY) ## all tests that need only packages; T=tests/core K=expired narrows
	@$(BIN)/python $(PYTEST) $(PARALLEL) -m "not services"

.PHONY: test-services
test-services: $(READY) ## the tests against a real PostgreSQL, Chromium, Spark and Marquez (installed if missing)
	@tools/with-spark tools/with-chromium tools/with-postgres tools/with-marquez $(BIN)/python $(PYTEST) $(PARALLEL) -m services
	@$(if $(filter-out tests,$(T))$(K),,$(MAKE) test-ai)

.PHONY: test-ai
test-ai: $(AI_READY) ## Airflow's own examples of common.ai, governed, with a stub model (part of test-services)
	@.venv-ai/bin/python -m pytest tests/enforcement/test_common_ai.py

.PHONY: screenshots
screenshots: $(READY) ## the pictures in docs/img, taken anew with Chromium
	@tools/with-chromium $(BIN)/python -m tests.browser.screenshots

.PHONY: pii-pictures
pii-pictures: $(READY) ## the scan table and the chart of the demo's data in docs/img, drawn anew
	@$(BIN)/python -m tests.pii.pictures

.PHONY: test-compat
test-compat: $(COMPAT_READY) ## the Airflow tests on the lowest supported Airflow
	@$(COMPAT_BIN)/python $(PYTEST) $(PARALLEL) -m "airflow and not services"

.PHONY: lint
lint: $(READY) ## ruff, formatting, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports

.PHONY: fmt
fmt: $(READY) ## let ruff fix and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(READY) ## benchmarks, one JSON line each; BENCH=name for one, SHORT=1 for small sizes
	@$(if $(SHORT)$(filter-out pii,$(BENCH)),,tools/with-spark) tools/with-postgres $(BIN)/python -m tests.bench $(BENCH) $(if $(SHORT),--short)

.PHONY: check
check: ## all that CI runs
	@.ci/run

.PHONY: env
env: $(READY) ## the development environment in .venv

.PHONY: constraints
constraints: $(READY) ## pin the newest versions that fit pyproject.toml (rewrites both constraints files)
	@BIN=$(BIN) tools/pin-versions

.PHONY: clean
clean: ## remove what the targets above made
	rm -rf .venv .venv-compat .venv-ai .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(READY): pyproject.toml constraints.txt tools/make-venv
	@tools/make-venv .venv constraints.txt dev
	@touch $@

$(AI_READY): pyproject.toml constraints.txt tools/make-venv
	@tools/make-venv .venv-ai constraints.txt ai
	@touch $@

$(COMPAT_READY): pyproject.toml constraints-compat.txt tools/make-venv
	@tools/make-venv .venv-compat constraints-compat.txt compat
	@touch $@
