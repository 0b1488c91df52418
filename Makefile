# Everything sets itself up in .venv: Python >= 3.11 and make are all that is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
DISTRIBUTED := $(VENV)/.installed-distributed
SITE := $(VENV)/site

.DEFAULT_GOAL := help
.PHONY: help setup demo up bench test in-order beside unit integration system distributed browser soak docs coverage mutants matrix lint format wheel lock clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Bytecode is compiled here, once: where PYTHONDONTWRITEBYTECODE is set (as in CI images), every Airflow process would
# compile all that it imports.
setup: $(STAMP)  ## Create .venv with the locked dependencies

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv

$(STAMP): requirements.txt pyproject.toml | $(UV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q plugins
	@touch $@

demo: $(STAMP)  ## Run the pipelines on this machine, over real text
	$(BIN)/python -m overnight.sandbox.demo

up: $(STAMP)  ## Start the sandbox and Airflow with the DAGs; Ctrl-C stops everything
	$(BIN)/python -m overnight.sandbox.up

# The system tests wait most of their time, so they run beside the others, which leave them the rest of the cores; what
# they print is shown when they are over.
test: $(STAMP)  ## Run all the tests, and print how long each part took
	@rm -f $(TIMES); start=$$(date +%s); $(MAKE) --no-print-directory --jobs=2 in-order beside; status=$$?; \
		cat $(TIMES); echo "all of them $$(( $$(date +%s) - start )) s"; exit $$status

in-order: $(STAMP)
	+@$(call timed,unit)
	+@$(call timed,integration)

beside: $(STAMP)
	+@$(call timed,system,> $(SYSTEM_LOG) 2>&1); status=$$?; cat $(SYSTEM_LOG); exit $$status

TIMES := $(VENV)/times
SYSTEM_LOG := $(VENV)/system.log
timed = start=$$(date +%s); $(MAKE) --no-print-directory $(1) $(2); status=$$?; \
	echo "$(1) $$(( $$(date +%s) - start )) s" >> $(TIMES); (exit $$status)

unit: $(STAMP)  ## Run the fast tests
	$(BIN)/python -m pytest tests/unit -n 2

integration: $(STAMP)  ## Run the tests against real servers
	$(BIN)/python -m pytest tests/integration -n 2

system: $(STAMP)  ## Run whole DAGs in a real Airflow, and kill things
	$(BIN)/python -m pytest tests/system

coverage: $(STAMP)  ## Run the fast tests and show which lines they do not reach
	$(BIN)/python -m pytest tests/unit -n 2 --cov --cov-report=term:skip-covered --cov-report=html:.coverage-html

mutants: $(STAMP)  ## Change jobs, the pay-once core, the cache, the bulk writer and the row reader, and count what no test notices
	$(BIN)/python tests/mutants.py --floor 90 $(MUTANTS)

matrix: $(STAMP)  ## Run the fast tests with other versions of Python and of what the package needs
	$(BIN)/python tests/matrix.py $(MATRIX)

# What only this needs, beside what is there: a Celery executor and the client of its broker.
$(DISTRIBUTED): tests/distributed/requirements.txt $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode --requirement $<
	@touch $@

distributed: $(DISTRIBUTED)  ## Run DAGs on Celery with two workers; needs redis-server
	$(BIN)/python -m pytest tests/distributed

# What only this needs: what drives a Chromium.
BROWSER := $(VENV)/.installed-browser
$(BROWSER): tests/browser/requirements.txt $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode --requirement $<
	@touch $@

browser: $(BROWSER)  ## Click through Airflow as a user; needs chromium. PICTURES=docs/pictures takes the pictures of the docs
	OVERNIGHT_SCREENSHOTS=$(PICTURES) $(BIN)/python -m pytest tests/browser

SECONDS := 600
SEED := 1
soak: $(DISTRIBUTED)  ## Kill processes at random under faults for SECONDS, and judge the end; SEED decides the rest
	PYTHONPATH=tests $(BIN)/python -m soak --seconds $(SECONDS) --seed $(SEED)

# mkdocs has an environment of its own: it reads the package and does not import it.
$(SITE)/.installed: docs/requirements.txt | $(UV)
	$(UV) venv --quiet --clear $(SITE)
	$(UV) pip sync --quiet --python $(SITE)/bin/python --require-hashes $<
	@touch $@

docs: $(SITE)/.installed  ## Build the pages in docs/ into site/, and check their links
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict

# What only this needs: a peer.
BENCHMARKS := $(VENV)/.installed-benchmarks
$(BENCHMARKS): benchmarks/requirements.txt $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode --requirement $<
	@touch $@

bench: $(BENCHMARKS)  ## Measure speed and memory beside what one would otherwise run; BENCH names modules of benchmarks/
	$(BIN)/python benchmarks/run.py $(BENCH)

lint: $(STAMP)  ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## Put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)  ## Build the wheel into dist/
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .

lock: | $(UV)  ## Renew requirements.txt from pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --upgrade --extra dev --custom-compile-command 'make lock' \
		--output-file requirements.txt pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --upgrade --custom-compile-command 'make lock' --constraint requirements.txt \
		$$(sed -nE 's/^([a-z0-9][a-z0-9._-]*)==.*/--no-emit-package \1/p' requirements.txt) \
		--output-file tests/distributed/requirements.txt tests/distributed/requirements.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --upgrade --custom-compile-command 'make lock' --constraint requirements.txt \
		$$(sed -nE 's/^([a-z0-9][a-z0-9._-]*)==.*/--no-emit-package \1/p' requirements.txt) \
		--output-file tests/browser/requirements.txt tests/browser/requirements.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --upgrade --custom-compile-command 'make lock' --constraint requirements.txt \
		$$(sed -nE 's/^([a-z0-9][a-z0-9._-]*)==.*/--no-emit-package \1/p' requirements.txt) \
		--output-file benchmarks/requirements.txt benchmarks/requirements.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --upgrade --custom-compile-command 'make lock' \
		--output-file docs/requirements.txt docs/requirements.in

clean:  ## Remove everything that was made here
	rm -rf $(VENV) site .demo .sandbox .airflow .mutants .coverage .coverage-html dist
