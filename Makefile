# Everything a developer runs. Needs python3 (3.11 to 3.13) with venv, and make; the rest is fetched.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo "$$python" && break; done)
VENV ?= .venv
ARGS ?=
# Most tests wait for brokers, databases and processes: two workers a core keep the cores busy.
WORKERS ?= 4

bin := $(VENV)/bin
installed := $(VENV)/.installed
services := $(bin)/python -m tests.support.services --

# Pyright otherwise asks a registry on every run whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, each of the tests' hundreds of processes would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test check format test-all torture bench bench-peers lock wheel clean

help: ## show this list
	@echo 'usage: make <command> [ARGS="..."]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'ARGS goes to the command behind: make test ARGS="tests/unit -x"'

demo: $(installed) ## run a whole order system, sagas and participants, in one process
	@$(bin)/saga demo $(ARGS)

test: $(installed) ## run the tests against real RabbitMQ, PostgreSQL and Redis (found, or started for the run)
	@$(services) $(bin)/python -m pytest -m "not torture" -n $(WORKERS) --dist worksteal $(ARGS)

check: $(installed) ## lint, formatting, mypy strict, pyright strict
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/pyright

format: $(installed) ## format the code and mend what ruff can mend
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

test-all: test ## run the tests with each further Python found here as well (3.12, 3.13)
	@for version in 3.12 3.13; do \
		found=; \
		for python in "$$(command -v python$$version)" "$$HOME"/.pyenv/versions/$$version.*/bin/python; do \
			if "$$python" -c 'import sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' \
				$$version 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then echo "test-all: no python$$version here, left out"; continue; fi; \
		echo "test-all: $$found"; \
		$(MAKE) --no-print-directory test PYTHON="$$found" VENV=.venv-$$version || exit 1; \
	done

torture: $(installed) ## kill processes and services at random for minutes on end
	@$(services) $(bin)/python -m pytest -m torture --timeout=0 $(ARGS)

bench: $(installed) ## measure sagas per second
	@$(services) $(bin)/python -m benchmarks $(ARGS)

bench-peers: $(installed) ## measure sagas and the bus beside other people's, which are installed once, outside this tree
	@$(services) $(bin)/python -m benchmarks --peers $(ARGS)
	@$(services) $(bin)/python -m benchmarks.bus --peers

lock: ## pin the newest allowed versions again, with hashes, for every supported Python
	@$(MAKE) --no-print-directory .venv-lock/bin/uv
	.venv-lock/bin/uv pip compile --no-config --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra dev --output-file requirements.lock pyproject.toml

wheel: $(installed) ## build the wheel into dist/
	$(bin)/python -m build --wheel --no-isolation

clean: ## remove caches and what was built; .venv stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .venv-*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

venv: $(installed) ## set up .venv from requirements.lock

# No build isolation and no dependencies: everything comes from the lock, and is checked against its hashes.
$(installed): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "sagasmith needs Python 3.11, 3.12 or 3.13, and found: $$(python3 --version 2>&1)." >&2; \
		echo "On Debian 12: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@"$(bin)/python" -c 'import pip' 2>/dev/null || "$(PYTHON)" -m venv --clear "$(VENV)"
	@"$(bin)/python" -m pip install -qq --require-hashes -r requirements.lock
	@"$(bin)/python" -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

.venv-lock/bin/uv:
	@"$(PYTHON)" -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -qq uv
