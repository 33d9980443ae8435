# Needs: Python 3.11+ with venv, and make. PYTHON=… chooses the interpreter, VENV=… where its environment goes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
UV_VERSION := 0.13.9
UV_VENV := build/lock
LUA := flashsale/gate/lua
STATIC := flashsale/web/pages/static

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup up test faults bench load load-page lint schema lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(BIN)/.ready ## install what requirements.lock names into .venv
	@:

up: setup ## start the service, its servers and the demo drop
	@$(BIN)/flashsale up

# The tests of a file share what they start, so files are what the processes take. Some tests alone: pytest PATH.
test: lint ## check style, types and arrows, then run all tests
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

faults: setup ## run the whole service under faults for half an hour; FAULTS="--seed 2" chooses another run
	@$(BIN)/python -m tests.faults $(FAULTS)

bench: setup ## measure, beside an empty handler, for about 20 minutes; ARGS="--only wins" chooses
	@$(BIN)/python -m loadtests.bench $(ARGS)

# HOST= names a service that runs; without it one is started. TOKENS= is a CSV of member_id,token for one whose secret is
# not known. LOAD="--shape soak --shoppers 20000" says what else: python -m loadtests.load --help.
LOAD_AT = $(if $(HOST),--url $(HOST)) $(if $(TOKENS),--tokens $(TOKENS))

load: setup ## let a crowd of shoppers in at noon, audit it; the report is build/load/index.html
	@$(BIN)/python -m loadtests.load $(LOAD_AT) $(LOAD)

load-page: setup ## the same with locust's own page, where each Start is a sale
	@$(BIN)/python -m loadtests.load --page $(LOAD_AT) $(LOAD)

lint: setup ## check style, types, the arrows between modules, Lua and the pages' modules
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports
	@if command -v node >/dev/null; then for module in $(STATIC)/*.js; do node --check $$module || exit 1; done; \
	elif [ "$(CI)" = true ]; then echo "node is missing; on CI that is a failure." >&2; exit 1; \
	else echo "node is missing: the pages' modules not checked (Debian: apt install nodejs)."; fi
	@if command -v luacheck >/dev/null; then luacheck --quiet $(LUA); \
	elif [ "$(CI)" = true ]; then echo "luacheck is missing; on CI that is a failure." >&2; exit 1; \
	else echo "luacheck is missing: Lua scripts not checked (Debian: apt install lua-check; macOS: brew install luacheck)."; fi

schema: setup ## write flashsale/ledger/schema.sql anew from the migrations
	@$(BIN)/python -m tests.ledger.schema

lock: ## resolve the newest allowed versions into requirements.lock
	@$(PYTHON) -m venv $(UV_VENV)
	@$(UV_VENV)/bin/python -m pip --quiet --quiet --disable-pip-version-check install uv==$(UV_VERSION)
	@$(UV_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--group build --group test --group load --output-file requirements.lock pyproject.toml

clean: ## remove the environment, caches and build outputs; the data in .flashsale stays
	@rm -rf $(VENV) build dist .coverage .coverage.* htmlcov .hypothesis .schemathesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock names everything with its hashes, the build backend too, and pip first: nothing else is fetched.
$(BIN)/.ready: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv: install it (Debian: apt install python3-venv) or name another Python: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up $(VENV) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@sed -n '/^pip==/,/[^\\]$$/p' requirements.lock >$(VENV)/pip.lock
	@$(PIP) install --no-deps --require-hashes --requirement $(VENV)/pip.lock
	@$(PIP) install --no-deps --no-compile --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
