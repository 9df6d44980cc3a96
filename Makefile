# Both commands work on a fresh machine: they create .venv and install what they need, pinned by constraints.txt.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check clean

demo: $(VENV)/.demo
	$(VENV)/bin/python examples/migrate_snntorch.py

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 -q

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
