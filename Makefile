# `make demo` and `make test` set up everything they need in .venv; the second time they start at once.
PYTHON ?= python3
BIN := .venv/bin
# One process for each core, at most eight, with one thread each: twice as fast as threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-latest lint check docs clean

help: ## show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/.run ## ask the shipped model about the shipped clips
	$(BIN)/llava-scissor demo

test: .venv/.dev ## run the tests
	$(PYTEST)

test-latest: ## run the tests with the newest release of everything but torch, in .venv-latest
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$$PIP_FIND_LINKS" .venv-latest/bin/uv pip install --quiet --python .venv-latest \
		--editable ".[dev]" $(shell grep '^torch==' constraints.txt)
	.venv-latest/bin/uv pip list --python .venv-latest
	$(PYTEST:.venv/%=.venv-latest/%)

lint: .venv/.dev ## ruff, import-linter and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test ## everything that is run on a change

docs: .venv/.dev ## write docs/configuration.md from the settings
	$(BIN)/python scripts/write_configuration_reference.py

clean: ## remove the environment and caches
	rm -rf .venv .venv-latest .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build

.venv/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/.dev: .venv/.run
	$(PIP) --editable ".[dev]"
	touch $@
