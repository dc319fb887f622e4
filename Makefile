PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup check test
setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt .[dev]
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
