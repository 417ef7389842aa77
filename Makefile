# Everything a newcomer runs. Each target makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= auto

.PHONY: demo test test-all coverage lint docs gpu-check clean

demo: $(STAMP)
	$(BIN)/bilevel run examples/oude_korendijk/study.yml --out results/oude_korendijk --force

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --durations=25

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --durations=25

# Counting lines doubles the time that the tests take.
coverage: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One table of what a GPU does; says so where there is none.
gpu-check: $(STAMP)
	$(BIN)/python -m benchmarks run core/gpu

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) results site

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first, at the version of constraints.txt: what it brings along depends on platform and index, see the README.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,docs]"
	touch $(STAMP)
