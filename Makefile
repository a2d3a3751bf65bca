# Two commands: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo test check format vectors install clean

$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable ".[$*]"
	touch $@

demo: $(VENV)/installed-sim  ## bring up a federation, train, release, serve, report
	$(BIN)/hanse-sim demo

test: $(VENV)/installed-test check  ## everything CI runs

install: $(VENV)/installed-test

check: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

vectors: $(VENV)/installed-test  ## write tests/vectors anew; nothing changes unless the protocol did
	$(BIN)/python -m simulation.vectors tests/vectors

clean:
	rm -rf $(VENV) runs build *.egg-info
