# Two commands do everything: `make demo` and `make test`. Needs Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell cat envs/torch.txt)

.PHONY: demo test test-slurm test-fresh setup setup-test lint lock

demo: setup
	$(BIN)/snakemake --cores 2

# Two files at a time, each on one thread; what a file's tests share is made once.
test: setup-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Installs and starts SLURM: as root on a Debian that can be thrown away.
test-slurm: setup-test
	tests/slurm/cluster.sh install
	HYDROPS_TEST_SLURM=1 $(BIN)/pytest tests/slurm; \
		code=$$?; tests/slurm/cluster.sh stop; exit $$code

# Makes a bare Debian and sets everything up in it: as root, with a network.
test-fresh: setup-test
	HYDROPS_TEST_FRESH=1 $(BIN)/pytest tests/test_fresh_machine.py

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

setup: $(VENV)/.run
setup-test: $(VENV)/.test

# A stamp is written only when every step before it has succeeded.
$(VENV)/.run: envs/requirements.lock envs/torch.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps --require-hashes -r envs/requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.test: $(VENV)/.run envs/requirements-test.lock
	$(BIN)/pip install --quiet --no-deps --require-hashes -r envs/requirements-test.lock
	touch $@

# Written with `uv`; torch is left out because its build is the site's choice. Its CPU build is
# resolved, for those for CUDA bring packages of their own: PyTorch's, or one in UV_FIND_LINKS.
ifndef UV_FIND_LINKS
lock: export UV_TORCH_BACKEND ?= cpu
endif
lock:
	cd envs && uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header \
		--no-emit-package torch --no-emit-find-links requirements-test.in -o requirements-test.lock
	cd envs && uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header \
		--no-emit-package torch --no-emit-find-links -c requirements-test.lock requirements.in -o requirements.lock
