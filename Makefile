# One door for commands: the same by hand, in CI and in Vagrant.
#
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment, SCENARIO=FILE what `run` runs, TESTS="..." what
# `test` hands to pytest, PREFIX=DIR and DESTDIR=DIR where `install` installs.
VENV ?= .venv
PREFIX ?= /usr/local
DESTDIR ?=
SCENARIO ?= scenarios/symmetric_nat.yaml
TESTS ?=
export PYTHON PREFIX DESTDIR

.NOTPARALLEL:
.PHONY: help venv dev run test install uninstall lint types contracts format wheel bench docs evidence clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

venv:
	@tools/install-system
	@tools/make-venv '$(VENV)'

dev:
	@tools/install-system
	@tools/make-venv '$(VENV)' dev

run: venv ## Run the first scenario: through which NATs do two QUIC peers connect?
	'$(VENV)/bin/testbed' run '$(SCENARIO)'

test: dev ## Run the tests of this machine, lab tests included
	'$(VENV)/bin/python' -m pytest $(TESTS)

install: ## Put `testbed` on the PATH (root, or PREFIX=)
	@tools/install-system
	@tools/install-testbed

uninstall: ## Take it away again
	rm -rf '$(DESTDIR)$(PREFIX)/lib/testbed' '$(DESTDIR)$(PREFIX)/bin/testbed'

lint: dev ## Check format, style, shell scripts, the workflow, the Vagrantfile
	@tools/install-system checks
	'$(VENV)/bin/ruff' format --check .
	'$(VENV)/bin/ruff' check .
	shellcheck $$(grep -rlE '^#!/bin/(ba)?sh' tools .ci)
	'$(VENV)/bin/check-jsonschema' --builtin-schema vendor.github-workflows .github/workflows/*.yml
	ruby -c Vagrantfile

types: dev ## Check types
	'$(VENV)/bin/mypy'

contracts: dev ## Check who imports whom
	'$(VENV)/bin/lint-imports'

format: dev ## Format the code
	'$(VENV)/bin/ruff' format .
	'$(VENV)/bin/ruff' check --fix .

wheel: dev ## Build sdist and wheel into dist/ and try the wheel outside the checkout
	tools/try-wheel '$(VENV)/bin/python'

bench: dev ## Measure what the project promises to be fast at
	'$(VENV)/bin/python' -m benchmarks

docs: dev ## Write the generated parts of docs/
	'$(VENV)/bin/python' -m tools.write_docs

evidence: dev ## Measure again what docs/ shows: runs, grids, certificates, alarms of rules
	tools/measure-evidence '$(VENV)/bin/testbed'
	'$(VENV)/bin/python' -m tools.write_docs

clean: ## Remove what was built; results/ stays
	rm -rf '$(VENV)' build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
