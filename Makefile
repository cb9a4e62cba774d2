# Everything runs in .venv, which the first target makes: torch and the build tools first, then this
# package without build isolation, so that torch is fetched once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Of gpu-report: one of its parts, where records go, the commit of a tree without .git, and a checkout
# of pytorch-CycleGAN-and-pix2pix to be timed unmodified; a data set to train on, and where the run's
# folder with its pictures goes (runs).
PART ?=
RESULTS_DIR ?=
COMMIT ?=
UPSTREAM ?=
DATAROOT ?=
RUNS ?=

SOURCES := setup.py CMakeLists.txt pyproject.toml $(shell find csrc -type f)
PYTEST := $(BIN)/python -m pytest
BENCH := $(PYTEST) benchmarks -q -o python_files='bench_*.py' -o python_functions='bench_*'

# The oldest PyTorch that is supported brings the oldest Triton. Paths of tests: all, if none.
OLDEST := $(VENV)-oldest
OLDEST_TESTS ?=

.PHONY: demo test test-oldest check build bench fuzz mutants gpu-report clean

demo: $(VENV)/.package  ## make a small data set, train on it, evaluate, and show the report
	$(BIN)/cyclegan-fast demo

test: $(VENV)/.dev  ## the whole suite; GPU tests run where there is a GPU
	OMP_NUM_THREADS=1 $(PYTEST) -q -n auto

test-oldest: $(VENV)/.dev $(OLDEST)/.torch  ## Triton's kernels with the oldest PyTorch and Triton
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python tests/oldest.py $(OLDEST_TESTS)

check: $(VENV)/.dev  ## style, types, and tables that say what the records say
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc tests/emulator -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | \
	  xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy cyclegan_fast
	$(BIN)/python benchmarks/tables.py --check

build: $(VENV)/.package  ## compile the kernels into the checkout

bench: $(VENV)/.dev  ## measure here, and write benchmarks/results
	$(BENCH) --benchmark-columns=median,rounds
	$(BIN)/python benchmarks/bench_step.py
	$(BIN)/python benchmarks/compile_report.py
	$(BIN)/python benchmarks/count_launches.py

fuzz: $(VENV)/.dev  ## 20,000 random calls of the ops on every back end; SEED=n for others
	OMP_NUM_THREADS=1 CYCLEGAN_FAST_FUZZ_CALLS=20000 CYCLEGAN_FAST_FUZZ_SEED=$(or $(SEED),1) \
	  $(PYTEST) -q -n auto tests/fuzz

mutants: $(VENV)/.dev  ## break the kernels one way at a time: the tests must notice each
	$(BIN)/python tests/mutants/run.py

# No .venv and no network: the Python that is there, with its PyTorch, on a machine with a GPU.
gpu-report:  ## GPU tests and benchmarks, their record and pages; PART=tests|step|ops|train for one of them
	$(PYTHON) benchmarks/gpu_report.py $(if $(PART),--part $(PART)) \
	  $(if $(RESULTS_DIR),--results-dir $(RESULTS_DIR)) $(if $(COMMIT),--commit $(COMMIT)) \
	  $(if $(UPSTREAM),--upstream $(UPSTREAM)) \
	  $(if $(DATAROOT),--dataroot $(DATAROOT)) $(if $(RUNS),--runs $(RUNS))

clean:  ## remove what the targets made
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info cyclegan_fast/*.so .pytest_cache .ruff_cache .mypy_cache

$(OLDEST)/.torch: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet "torch==2.11.*" numpy "pillow>=13" pytest==9.2.0 pytest-xdist==3.8.0
	touch $@

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "setuptools>=77,<82" "cmake>=3.26" "ninja>=1.11" "pybind11>=2.13" \
	  "torch>=2.11" numpy
	touch $@

$(VENV)/.package: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@
