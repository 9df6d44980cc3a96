# Both commands work on a fresh machine: they create .venv and install what they need, pinned by constraints.txt.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Bytecode is kept, and beside the environment: every worker of the tests imports everything, with annotations checked.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX = $(abspath $(VENV))/bytecode

.PHONY: demo quick test check clean

demo: $(VENV)/.demo
	$(VENV)/bin/python examples/migrate_snntorch.py

# What takes minutes; `make test` also runs what takes long or starts processes.
quick: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not full"

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q

check: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
