# Everything needs only make and Python 3.11 or newer; `make` alone lists the targets.
PYTHON ?= python3
ARGS ?=
SECONDS ?= 60
PYTEST_ARGS ?=

FUZZ_SECONDS ?= 60
HERE := not container and not chaos and not faults and not fuzz
# Most tests wait for a process or for a time to pass, so more of them than cores run side by side.
PARALLEL := -n 4

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make requirements"
WHEEL_CHECK := build/wheel-check
DJANGO := bench/rivals/django-oauth-toolkit
# What tests may read beside the packages themselves.
TEST_FILES = $(wildcard tests docs bench deploy requirements pyproject.toml *.md LICENSE Makefile Dockerfile docker-compose.yml)

.DEFAULT_GOAL := help
.PHONY: help run check lint fuzz audit test chaos test-faults test-container wheel test-wheel fmt docs bench bench-rivals requirements clean python-is-new-enough

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/run.stamp ## start everything in one go: embedded server, worker, API (ARGS="--port 8123")
	@exec $(BIN)/login-relay serve $(ARGS)

check: lint test ## what to run before a push: lint, then test

lint: $(VENV)/dev.stamp ## format, ruff, mypy and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: $(VENV)/dev.stamp ## every test that needs neither a container engine nor minutes
	$(BIN)/pytest -m "$(HERE)" $(PARALLEL) $(PYTEST_ARGS)

chaos: $(VENV)/dev.stamp ## logins while processes are killed and connections break, and a verdict (SECONDS=40 SEED=7 JSON=FILE)
	$(BIN)/python -m tests.chaos.runner --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json $(JSON))

test-faults: $(VENV)/dev.stamp ## one fault at a time: killed and stopped processes, lost replies, a full Redis, overload
	$(BIN)/pytest -m "faults and not chaos" -n 2 $(PYTEST_ARGS)

test-container: $(VENV)/dev.stamp ## integration tests on a real Redis, and the compose file, in containers
	$(BIN)/pytest -m "$(HERE)" --redis container tests/integration $(PYTEST_ARGS)
	$(BIN)/pytest -m container $(PYTEST_ARGS)

# Bounded: schemathesis for FUZZ_SECONDS, the others by their number of examples. A finding prints its seed: FUZZ_SEED=…
fuzz: $(VENV)/dev.stamp ## send a running service, a worker and the checks of access what no client would
	FUZZ_SECONDS=$(FUZZ_SECONDS) timeout $$(($(FUZZ_SECONDS) + 200)) $(BIN)/pytest -q -rP --hypothesis-show-statistics tests/fuzz

audit: $(VENV)/dev.stamp ## look for known weaknesses in the pinned packages (needs the advisory service of PyPI)
	$(PYTHON) -m venv build/audit
	build/audit/bin/python $(PIP_INSTALL) pip-audit
	build/audit/bin/pip-audit --disable-pip --require-hashes --strict $(foreach file,run otel build dev,-r requirements/$(file).txt)

wheel: $(VENV)/run.stamp ## build dist/login_relay-*.whl
	@rm -f dist/login_relay-*.whl
	$(BIN)/hatchling build -t wheel

# The copy of the tests lies where no source folder can be imported: what runs is the installed wheel.
test-wheel: wheel ## the tests again, on the built wheel in a fresh environment
	@rm -rf $(WHEEL_CHECK)
	@mkdir -p $(WHEEL_CHECK)/files
	@cp -R $(TEST_FILES) $(WHEEL_CHECK)/files
	$(PYTHON) -m venv $(WHEEL_CHECK)/venv
	$(WHEEL_CHECK)/venv/bin/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	$(WHEEL_CHECK)/venv/bin/python $(PIP_INSTALL) --no-deps --no-index dist/login_relay-*.whl
	cd $(WHEEL_CHECK)/files && ../venv/bin/pytest -m "$(HERE)" $(PARALLEL) $(PYTEST_ARGS)

bench: $(VENV)/bench.stamp ## measure and draw docs/benchmarks.*: 25 minutes (QUICK=1: four, nothing kept; LIVE=10000000)
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(LIVE),--live $(LIVE)) $(ARGS)

bench-rivals: $(VENV)/bench.stamp $(DJANGO)/.venv/stamp ## measure two other servers beside the relay; needs Node 20 and npm (QUICK=1)
	@command -v npm >/dev/null || { echo "npm is not installed: https://nodejs.org, or apt-get install npm" >&2; exit 2; }
	@npm install --prefix bench/rivals/oidc-provider --no-package-lock --no-audit --no-fund --silent
	@$(BIN)/python -m bench --rivals $(if $(QUICK),--quick) $(ARGS)

fmt: $(VENV)/dev.stamp ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp ## write the generated parts of README.md and docs/ again
	$(BIN)/python -m docs.generate

# In this order: each file is held to the versions of the one before, so that all install side by side.
requirements: $(VENV)/dev.stamp ## pin the dependencies again (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements/run.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --extra otel -c requirements/run.txt -o requirements/otel.txt
	$(COMPILE) $(UPGRADE) --group build -c requirements/run.txt -o requirements/build.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --extra otel --group dev -c requirements/otel.txt -c requirements/build.txt \
		-o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --group bench -c requirements/dev.txt -o requirements/bench.txt
	cd $(DJANGO) && "$(CURDIR)"/$(COMPILE) $(UPGRADE) requirements.in -o requirements.txt

clean: ## remove what the other targets made; the state of a server in .login-relay/ stays
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .schemathesis
	rm -rf bench/rivals/oidc-provider/node_modules $(DJANGO)/.venv
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "login-relay needs Python 3.11 or newer; PYTHON=$(PYTHON) is" \
			"$$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.12 …" >&2; exit 2; }

$(VENV)/run.stamp: pyproject.toml requirements/run.txt requirements/build.txt | python-is-new-enough
	@echo "preparing $(VENV) (once; under a minute)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "adding the development tools to $(VENV)" >&2
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(DJANGO)/.venv/stamp: $(DJANGO)/requirements.txt | python-is-new-enough
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/run.stamp
	@echo "adding what benchmarks need to $(VENV)" >&2
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@
