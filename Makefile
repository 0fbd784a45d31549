# Everything runs from .venv, made on demand with the python3 at hand: no root, nothing else installed.
# PIP_FLAGS reaches pip, e.g. to name an index that has torch without CUDA.
PYTHON ?= python3
PIP_FLAGS ?=
BIND ?= 127.0.0.1:8080
STAMP := .venv/.installed
NODE_STAMP := tests/node/node_modules/.installed

.DEFAULT_GOAL := help
.PHONY: help install run demo test drills lint docs bench results clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install everything into it

$(STAMP): setup.cfg setup.py pyproject.toml $(wildcard optimizer/bandit/kernel/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sendtide needs Python 3.11 or newer")'
	@# A few loops of a decision are compiled. Without a compiler, and without the right to install it, NumPy does the same.
	@if ! { command -v cc && $(PYTHON) -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")'; } >/dev/null 2>&1 \
		&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev; \
	fi || true
	$(PYTHON) -m venv .venv
	rm -f optimizer/bandit/kernel/*.so
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[simulations,dev]'
	@touch $@

run: $(STAMP) ## start API, scheduler and console on http://127.0.0.1:8080 (or BIND=HOST:PORT), data under ./var/
	@mkdir -p var
	.venv/bin/sendtide serve --first-start --log-format text --bind $(BIND)

demo: $(STAMP) ## drive a made-up audience through the HTTP API
	.venv/bin/sendtide demo

# A browser for the console's tests. Without it, and without the right to install it, they skip and say so.
.PHONY: browser
browser:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	fi || true
	@command -v chromium >/dev/null || echo "no chromium: tests of the console in a browser will skip" >&2

# SDKs in JavaScript, and axe-core, for tests alone. Without node, and without the right to install it, these tests skip
# and say so.
$(NODE_STAMP): tests/node/package.json tests/node/package-lock.json
	@if ! command -v npm >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; \
	fi
	@if command -v npm >/dev/null; then \
		cd tests/node && npm ci --no-audit --no-fund --ignore-scripts && touch node_modules/.installed; \
	fi || true
	@[ -e $@ ] || echo "no node, or no packages for it: tests of JavaScript SDKs and of the console will skip" >&2

test: $(STAMP) $(NODE_STAMP) browser ## run the whole suite
	.venv/bin/pytest -n 2 --dist worksteal

drills: $(STAMP) ## the faults of the store: killed, cut off, full, locked, hanging
	.venv/bin/pytest -m drill --whole

lint: $(STAMP) ## style, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: $(STAMP) ## build the pages of docs/ as a site: docs/_build/index.html
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build

bench: $(STAMP) ## measure what a decision costs, beside the bare inserts that bound it
	.venv/bin/python -m simulations.bench

results: $(STAMP) ## play the scenarios of the goals table, 10 seeds each, and write simulations/RESULTS.md: most of a day on two cores
	.venv/bin/sendtide results --processes 2

clean: ## remove .venv and what tools cached; leaves ./var/ alone
	rm -f optimizer/bandit/kernel/*.so
	rm -rf tests/node/node_modules .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache docs/_build build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
