# make demo    install (no torch), compile a network to INT8, run it at a fixed rate, show what it found
# make test    install everything and run the tests
# make check   format, lint, types, import rules, size of files
# make kernel-tools   compilers and disassembler of the CUDA kernels, 0.4 GB, where they are missing
# make contract-wheels   Python bindings of five versions of TensorRT, 7 MB, for the contract tests
# make test-kernels   the kernels over all shapes under every sanitizer: minutes
# make bench   measure this machine and write one report
# make clean   remove what the others made, but the virtual environment
#
# TORCH is what pip installs for training and the tests. A smaller build without CUDA:
#   make test TORCH="torch==2.13.0 --index-url <the CPU index of pytorch.org>"

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
JOBS   ?= 2

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check
RUNS    := $(VENV)/.installed-demo
DEVELOP := $(VENV)/.installed-develop

.PHONY: demo test test-kernels kernel-tools contract-wheels check bench clean FORCE

demo: $(RUNS)
	$(BIN)/python examples/demo.py

# Hundreds of tests start processes, which would each compile the sources where no .pyc is written.
test: $(DEVELOP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

test-kernels: $(DEVELOP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) -m "slow or not slow" tests/kernels

# nvcc comes from the machine where it has one; pip's takes 270 MB.
kernel-tools: $(DEVELOP)
	$(BIN)/python scripts/kernel_tools.py

contract-wheels: $(DEVELOP)
	$(BIN)/python scripts/contract_wheels.py

check: $(DEVELOP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/size_budget.py
	$(BIN)/python scripts/readme_tables.py --check
	$(BIN)/python scripts/link_tree.py
	$(BIN)/mypy
	$(BIN)/mypy --implicit-reexport tests scripts examples
	PYTHONPATH=.types $(BIN)/lint-imports

bench: $(RUNS)
	$(BIN)/python scripts/bench.py

clean:
	rm -rf .types .cache demo build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNS): setup.cfg pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (no torch)"
	$(PIP) install -e '.[cpu,compile]'
	@touch $@

# torch goes in first and is pinned, so that no dependency of another extra replaces its build.
$(DEVELOP): setup.cfg pyproject.toml $(VENV)/.torch | $(BIN)/python
	@echo "installing into $(VENV): $(TORCH) and everything else"
	$(PIP) install $(TORCH)
	$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" \
		> $(VENV)/torch.txt
	$(PIP) install -c $(VENV)/torch.txt -e '.[cpu,compile,train,viz,rtx,dev]'
	@touch $@ $(RUNS)

$(VENV)/.torch: FORCE | $(BIN)/python
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@
