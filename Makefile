# Needs only python3, 3.11 or newer (or name another: make PYTHON=/path/to/python3 TARGET).
# Installs into the active virtual environment, else into ./.venv, which it creates.

PYTHON ?= python3
VENV := $(if $(and $(VIRTUAL_ENV),$(wildcard $(VIRTUAL_ENV)/bin/python)),$(VIRTUAL_ENV),.venv)
RUN := $(VENV)/bin/python
# A virtual environment may serve several clones: the stamps are this clone's own.
STAMP := $(VENV)/.apisix-runner-$(firstword $(shell pwd -P | cksum))
FUZZ_MUTATIONS ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help install dev test lint docs fuzz bench bench-peers guard dist chaos dashboard lock clean

help:
	@echo "make install   install the runner, ready to be started by APISIX"
	@echo "make dev       try it: runner, gateway and upstream in one command, no APISIX needed"
	@echo "make test      all tests, with coverage"
	@echo "make lint      ruff, mypy, layers, licences"
	@echo "make docs      the documentation as a site, in build/docs"
	@echo "make fuzz      mutated frames against both codecs, then with sanitizers (FUZZ_MUTATIONS=$(FUZZ_MUTATIONS))"
	@echo "make bench     what the runner costs, over plugins, connections and sizes (QUICK=1: only to try it)"
	@echo "make bench-peers  the same beside other runners: GO_RUNNER=, JAVA_RUNNER=, OLD_PYTHON_RUNNER= (benchmarks/README.md)"
	@echo "make guard     instructions of each call, compared with the baseline; needs valgrind"
	@echo "make chaos     deaths, restarts, lack of everything and bad plugins under load: ten minutes, ends with a table"
	@echo "make dashboard  the image of the Grafana dashboard in the documentation; needs chromium and prometheus"
	@echo "make dist      a source distribution, a pure wheel, a compiled one for this platform, and a list of what is in them"
	@echo "make lock      choose the newest dependencies, and write their hashes into requirements*.lock"
	@echo "make clean     remove what the others made, .venv included"

install: $(STAMP)-install
	@echo "Installed into $(VENV). Start it: APISIX_LISTEN_ADDRESS=unix:/tmp/runner.sock python3 apisix/main.py start"

dev: $(STAMP)-install
	@exec $(RUN) -m apisix.runner dev

# Two at once, and about as long as each other: the first from source, with the rooms whose coverage counts; the second
# compiled, where that was built. Rooms that a call passes through are in both.
FROM_SOURCE := tests/wire tests/http tests/plugin tests/testing tests/gateway tests/inspector tests/deploy \
	tests/test_config.py tests/test_logs.py tests/server/test_lead.py
BOTH := tests/http tests/plugin tests/server/test_lead.py
test: $(STAMP)-dev
	@$(RUN) -m coverage erase
	@others=$$(mktemp); \
	$(RUN) -m pytest $(patsubst %,--ignore=%,$(filter-out $(BOTH),$(FROM_SOURCE))) >$$others 2>&1 & \
	pid=$$!; trap 'kill $$pid 2>/dev/null' INT TERM; \
	APISIX_RUNNER_PURE=1 $(RUN) -m coverage run -m pytest $(FROM_SOURCE); code=$$?; \
	wait $$pid || code=1; cat $$others; rm $$others; exit $$code
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report

lint: $(STAMP)-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports
	$(RUN) .ci/licences.py

docs: $(STAMP)-dev
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "The documentation is in build/docs/index.html"

fuzz: $(STAMP)-dev
	FUZZ_MUTATIONS=$(FUZZ_MUTATIONS) $(RUN) -m pytest tests/wire -k fuzz
	$(RUN) -m tests.wire.sanitized $(FUZZ_MUTATIONS)

bench: $(STAMP)-bench
	$(RUN) -m benchmarks.run --all $(if $(QUICK),--quick) $(if $(APISIX),--apisix $(APISIX))
	$(RUN) -m benchmarks.profile
	$(RUN) -m benchmarks.report

bench-peers: $(STAMP)-bench
	$(RUN) -m benchmarks.peers $(if $(QUICK),--quick)
	$(RUN) -m benchmarks.report

guard: $(STAMP)-dev
	$(RUN) -m benchmarks.guard

chaos: $(STAMP)-dev
	$(RUN) -m pytest tests/chaos $(CHAOS)

dashboard: $(STAMP)-dev
	$(RUN) -m tests.deploy.dashboard

dist: $(STAMP)-release
	rm -rf dist
	$(RUN) -m build --sdist
	APISIX_RUNNER_PURE=1 $(PIP) wheel --quiet --no-deps --wheel-dir dist dist/*.tar.gz
	APISIX_RUNNER_PURE=0 $(PIP) wheel --quiet --no-deps --wheel-dir dist dist/*.tar.gz
	$(RUN) -m venv --clear build/released
	$(PIP) --python build/released/bin/python install --quiet --require-hashes -r requirements.lock
	$(PIP) --python build/released/bin/python install --quiet --no-deps --no-index --pre \
		--find-links dist apisix-runner
	$(PIP) --python build/released/bin/python uninstall --quiet --yes setuptools pip
	$(VENV)/bin/cyclonedx-py environment --output-reproducible \
		--output-file dist/apisix-runner.cdx.json build/released/bin/python
	@ls dist

# Three lists: what the images run, what a wheel is built with, and what developers and CI use (make LOCKED=1 TARGET).
COMPILE = $(VENV)/bin/uv --no-config pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"
lock: $(STAMP)-release
	$(COMPILE) pyproject.toml --extra title --extra uvloop -o requirements.lock
	$(RUN) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(COMPILE) - -o requirements-build.lock
	$(COMPILE) pyproject.toml --extra dev --extra bench --extra release -o requirements-dev.lock

clean:
	find apisix -name "*.so" -delete
	rm -rf .venv build dist *.egg-info .coverage .coverage.* htmlcov benchmarks/build
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PIP = $(RUN) -m pip --disable-pip-version-check

BUILT_FROM = pyproject.toml setup.py apisix/runner/compiled.py $(shell find apisix/runner -name "*.p[xy][xd]") \
	$(shell find apisix/runner -name "*.pxd" | sed s/pxd$$/py/)

$(STAMP)-install: $(BUILT_FROM) | $(RUN)
	@echo "Installing the runner into $(VENV) ..."
	@$(PIP) install --quiet --editable '.[all]'
	@$(RUN) -m apisix.runner --version
	@touch $@

$(STAMP)-dev: $(BUILT_FROM) | $(RUN)
	@echo "Installing the runner and its development tools into $(VENV) ..."
	@$(if $(LOCKED),$(PIP) install --quiet --require-hashes -r requirements-dev.lock)
	@$(PIP) install --quiet $(if $(LOCKED),--no-deps --no-build-isolation) --editable '.[dev]'
	@$(RUN) -m apisix.runner --version
	@touch $@ $(STAMP)-install

$(STAMP)-bench: pyproject.toml | $(STAMP)-dev
	@$(PIP) install --quiet --editable '.[dev,bench]'
	@touch $@

$(STAMP)-release: pyproject.toml | $(STAMP)-dev
	@$(if $(LOCKED),,$(PIP) install --quiet --editable '.[dev,release]')
	@touch $@

OTHER_PYTHON = or name another: make PYTHON=/path/to/python3

$(RUN):
	@$(PYTHON) -c '' 2>/dev/null || \
		{ echo "make: expected Python 3.11 or newer, but $(PYTHON) does not run; install it, $(OTHER_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); install it, $(OTHER_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: $(PYTHON) has no venv module; install it (on Debian and Ubuntu: python3-venv), $(OTHER_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
