# Shortcuts for people; everything is also plain commands in README.md and CONTRIBUTING.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# For the targets on a GPU. GPU_PYTHON names an interpreter that has trine, CuPy, pytest and, for the
# benchmarks, PyTorch already; without it they are installed into an environment of their own.
CUDA   ?= 13
GPU_FLAGS ?=
ifdef GPU_PYTHON
GPU_READY :=
TORCH_READY :=
else
GPU_VENV   := .venv-gpu
GPU_PYTHON := $(GPU_VENV)/bin/python
GPU_READY   := $(GPU_VENV)/installed
TORCH_READY := $(GPU_VENV)/torch
endif

.PHONY: train test lint dev op-matrix models docs gpu-test gpu-sanitize gpu-bench-kernels gpu-bench-steps mutants

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

docs:  ## build the guide into site/, from an installed copy: its tools cannot read an editable one
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install -q ".[docs]"
	.venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/python tests/docs/check_site.py site

gpu-test: $(GPU_READY)  ## the tests that need a GPU; table in bench/results/gpu-tests.md
	$(GPU_PYTHON) -m trine.bench.gpu.tests $(GPU_FLAGS)

gpu-sanitize: $(GPU_READY)  ## compute-sanitizer over every op; bench/results/gpu-sanitize.md
	$(GPU_PYTHON) -m trine.bench.gpu.sanitize $(GPU_FLAGS)

gpu-bench-kernels: $(TORCH_READY)  ## kernels against PyTorch; bench/results/gpu-kernels.md
	$(GPU_PYTHON) -m trine.bench.gpu.kernels $(GPU_FLAGS)

gpu-bench-steps: $(TORCH_READY)  ## training steps against PyTorch; bench/results/gpu-steps.md
	$(GPU_PYTHON) -m trine.bench.gpu.steps $(GPU_FLAGS)

$(GPU_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/pip install -q -e ".[cuda$(CUDA),test]"
	touch $@

$(GPU_VENV)/torch: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/pip install -q torch
	touch $@

mutants: $(VENV)/installed  ## plant a hundred faults in the CUDA kernels; the tests must find them
	$(BIN)/python tests/kernels/cuda/mutation/run.py --seed 1 --count 100 --out bench/results/cuda-mutants.md

models: $(VENV)/installed  ## train every system and write the table anew; again with MODELS_FLAGS=--resume
	$(BIN)/python -m trine.bench.model_table --out docs/models.md --json models/measured.json $(MODELS_FLAGS)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $@
