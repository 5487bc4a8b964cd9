# Shortcuts for people; everything is also plain commands in README.md and CONTRIBUTING.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: train test lint dev op-matrix models mutants docs

train: $(VENV)/installed  ## train LeNet-5 on the shipped digits
	$(BIN)/trine train lenet5

test: $(VENV)/installed  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed  ## lint and format check (types: CONTRIBUTING.md)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

dev: $(VENV)/installed  ## make the environment for development

op-matrix: $(VENV)/installed  ## write docs/op-matrix.md anew
	$(BIN)/trine doctor --ops > docs/op-matrix.md

mutants: $(VENV)/installed  ## plant a hundred faults in the CUDA kernels; the tests must find them
	$(BIN)/python tests/kernels/cuda/mutation/run.py --seed 1 --count 100 --out bench/results/cuda-mutants.md

docs: $(VENV)/installed  ## build the guide into site/
	$(BIN)/mkdocs build --strict

models: $(VENV)/installed  ## train every system and write the table of results anew
	$(BIN)/python -m trine.bench.model_table --out docs/models.md --json models/measured.json

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $@
