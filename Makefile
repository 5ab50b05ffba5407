# Thin targets over the `bertloom` command, pytest and ruff. Each except help first makes .venv, which takes a few minutes once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-engines test-versions campaign lint format docs bench conformance release-check

help:
	@echo "make demo     every step on the shipped sample: vocabulary, shards, a short training, resume"
	@echo "make test     the tests, offline, on CPU (make test ARGS='-k name' for some, ARGS='-m slow' for the slow ones)"
	@echo "make test-engines  a job on each engine that is here (Prism, Dask, Flink, Spark), whose workers are killed"
	@echo "make test-versions  the sample's digest on each Python found here, pinned and oldest packages; each extra (needs an index)"
	@echo "make campaign  faults of every kind, for an hour: kills, full disks, damaged files (make campaign ARGS='--part kills')"
	@echo "make release-check  the wheel of the sdist in an empty environment, where the demo runs (needs an index)"
	@echo "make lint     ruff format --check, ruff check and mypy"
	@echo "make format   ruff format, and ruff's own fixes"
	@echo "make docs     the documentation as a site: open site/index.html"
	@echo "make bench    the scripts in benchmarks/, one after the other"
	@echo "make conformance  what loaders read after a stop, bertloom's and others' (docs/loader-conformance.md; needs an index)"
	@echo "PYTHON=python3.12 chooses the Python that .venv is made from (3.11 to 3.14)"

demo: .venv/.installed-all
	$(BIN)/bertloom demo

test: .venv/.installed-test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(ARGS)

test-engines: .venv/.installed-test
	$(BIN)/python -m pytest -m engines tests/engines $(ARGS)

test-versions: .venv/.installed-test
	$(PIP) uv
	$(BIN)/python -m pytest -m versions tests/test_versions.py

campaign: .venv/.installed-campaign
	$(BIN)/python -m tests.campaign $(ARGS)

release-check: .venv/.installed-test
	$(BIN)/python -m pytest -s -m versions tests/test_release.py

lint: .venv/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.installed-lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --strict: a link to a page or a heading that is absent is an error. The variable silences an announcement of mkdocs-material.
docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: .venv/.installed-test .venv-rivals/run_mlm/.installed
	@for script in $(wildcard benchmarks/bench_*.py); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

conformance: .venv/.installed-test .venv-rivals/loaders/.installed
	$(BIN)/python benchmarks/loader_conformance $(ARGS)

# Made again only when what it was made from changes.
.venv/.installed-all: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) or sys.exit("bertloom needs Python 3.11 to 3.14, not %d.%d. Name one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e '.[all]'
	touch $@

.venv/.installed-test: .venv/.installed-all
	$(PIP) -e '.[test]'
	touch $@

# atheris has wheels for some Pythons only. Without it, the campaign reports that its searches were left out.
.venv/.installed-campaign: .venv/.installed-test
	$(PIP) --only-binary :all: atheris || echo "atheris was not installed: the campaign leaves its searches out"
	touch $@

.venv/.installed-lint: .venv/.installed-test
	$(PIP) -e '.[test,lint]'
	touch $@

.venv/.installed-docs: .venv/.installed-all
	$(PIP) -e '.[all,docs]'
	touch $@

# Rivals have environments of their own, so that their packages cannot change ours.
.venv-rivals/%/.installed: benchmarks/rivals/%.txt
	test -x .venv-rivals/$*/bin/python || $(PYTHON) -m venv .venv-rivals/$*
	.venv-rivals/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@
