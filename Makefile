# One door for commands: the same by hand, in CI and in Vagrant.
PYTHON ?= python3
PREFIX ?= /usr/local
VENV := .venv
BIN := $(VENV)/bin
SCENARIO ?= scenarios/symmetric_nat.yaml

.PHONY: help run test install uninstall lint types contracts format wheel bench docs clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) tools/install-system
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "testbed needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@PYTHON=$(PYTHON) tools/install-system --dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.run ## Run the first scenario: through which NATs do two QUIC peers connect?
	$(BIN)/testbed run $(SCENARIO)

test: $(VENV)/.dev ## Run the tests of this machine, lab tests included
	$(BIN)/python -m pytest $(TESTS)

install: ## Put `testbed` on the PATH (root)
	@PYTHON=$(PYTHON) tools/install-system
	$(PYTHON) -m venv $(DESTDIR)$(PREFIX)/lib/testbed
	$(DESTDIR)$(PREFIX)/lib/testbed/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	mkdir -p $(DESTDIR)$(PREFIX)/bin
	ln -sf $(PREFIX)/lib/testbed/bin/testbed $(DESTDIR)$(PREFIX)/bin/testbed

uninstall: ## Take it away again
	rm -rf $(DESTDIR)$(PREFIX)/lib/testbed $(DESTDIR)$(PREFIX)/bin/testbed

lint: $(VENV)/.dev ## Format, lint, shell scripts, the workflow
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	shellcheck tools/install-system .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

contracts: $(VENV)/.dev ## Check who imports whom
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.dev ## Build the wheel and try it outside the checkout
	tools/try-wheel $(BIN)/python

bench: $(VENV)/.dev ## Measure what the project promises to be fast at
	$(BIN)/python -m benchmarks

docs: $(VENV)/.dev ## Write the generated parts of docs/
	$(BIN)/python -m tools.write_docs

clean: ## Remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
