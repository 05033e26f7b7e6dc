# `make demo` runs the whole pipeline on two CPU cores, `make test` checks everything that needs no GPU.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The suite shares cores between processes; spinning or nested threads would only be in the way.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OMP_WAIT_POLICY := passive
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo test test-slow ablations encoders encoders-long clean

setup: $(STAMP)

# Installed from scratch into a folder that gets its stamp last: an interrupted setup starts over.
$(STAMP): pyproject.toml
	@echo 'installing into $(VENV): minutes with pip, seconds with uv'
	@rm -rf $(VENV)
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --python $(PYTHON) $(VENV) && uv pip install --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet -e '.[dev]'; \
	fi
	@touch $@

demo: $(STAMP)
	$(BIN)/dreamline run --preset demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow and not gpu" --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Kills, servers and whole chains, in the order of minutes.
test-slow: $(STAMP)
	$(BIN)/pytest -m "slow and not gpu" --timeout 1200

# What each choice of the recipe is worth at equal compute: about an hour.
ablations: $(STAMP)
	$(BIN)/python benchmarks/ablations.py --json benchmarks/results/ablations.json --pictures docs/images/ablations.png

# Trains the demo's frozen encoders again; what is committed came from here.
encoders: $(STAMP)
	$(BIN)/python -m training.encoders.run --out assets/encoders

encoders-long: $(STAMP)
	$(BIN)/python -m training.encoders.run --config conf/demo-long/encoders.yaml --out assets/encoders-long

clean:
	rm -rf $(VENV) workspace .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
