# Thin targets over the `bertloom` command and pytest. All but help first make .venv, which takes a few minutes once.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint bench

help:
	@echo "make demo    the whole road on the shipped sample: vocabulary, shards, a short training, resume"
	@echo "make test    the tests, offline, on CPU (make test ARGS='-m slow' for the slow ones)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the scripts in benchmarks/, one after the other"
	@echo "PYTHON=python3.12 chooses the Python that .venv is made from (3.11 to 3.13)"

demo: .venv/.installed
	$(BIN)/bertloom demo

test: .venv/.installed
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed
	@for script in $(wildcard benchmarks/bench_*.py); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

# Made again only when what it was made from changes.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("bertloom needs Python 3.11, 3.12 or 3.13, not %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

.venv/.installed-lint: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@
