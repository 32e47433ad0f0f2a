# Two commands are enough on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-quick coverage lint soak bench calibration docs install clean
help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort

$(VENV)/.stamp: pyproject.toml
	@echo "setting up $(VENV) (backtest-kit and what it needs)"
	@$(PYTHON) -c 'import sys; sys.exit("backtest-kit needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[report]"
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp
	@echo "setting up $(VENV) (tests and lint)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[all]" --group test --group statistics --group lint --group browser
	@touch $@

install: $(VENV)/.stamp ## set up .venv with backtest-kit

demo: $(VENV)/.stamp ## generate a month of candles, backtest a strategy, write a report
	@$(BIN)/backtest-kit demo

test: $(VENV)/.stamp-test ## run all tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-quick: $(VENV)/.stamp-test ## run what takes no seconds, with fewer examples: in two minutes
	@HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

coverage: $(VENV)/.stamp-test ## run all tests and measure what they reach; twice as long
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov --cov-report=term

lint: $(VENV)/.stamp-test ## lint, format check and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

soak: $(VENV)/.stamp-test ## seven virtual days of twenty live symbols with faults every few minutes
	@SOAK_DAYS=7 $(BIN)/python -m pytest -q -p no:xdist tests/live/test_soak.py

bench: $(VENV)/.stamp-test ## measure speed and memory, as ratios within one run
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.arrays
	@$(BIN)/python -m benchmarks.sweep
	@$(BIN)/python -m benchmarks.growth
	@$(BIN)/python -m benchmarks.live_step
	@$(BIN)/python -m benchmarks.walk
	@$(BIN)/python -m benchmarks.pages
	@$(BIN)/python -m benchmarks.account
	@$(BIN)/python -m benchmarks.account_walk
	@$(BIN)/python -m benchmarks.portfolio

calibration: $(VENV)/.stamp-test ## count what walks claim of nothing, and write docs/calibration.md: half an hour
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.calibration $(if $(MINUTES),--minutes $(MINUTES))

docs: $(VENV)/.stamp ## build the documentation site into site/
	@$(BIN)/python -m pip install -q --disable-pip-version-check --group docs
	@$(BIN)/mkdocs build --strict

clean: ## remove what the other targets made
	rm -rf $(VENV) site dump .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
