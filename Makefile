# Every way to build, check, test and show Palomar. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-test bpf proto demo test test-root check bench clean wheel

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: ## install what running needs (Debian packages, .venv, bpffs) and build the BPF objects
	@./setup.sh run
	@$(MAKE) --no-print-directory bpf

setup-test: ## the same, and what the tests need
	@./setup.sh test
	@$(MAKE) --no-print-directory bpf

bpf: ## compile bpf/*.c into datapath/objects/
	@$(MAKE) --no-print-directory -C bpf

proto: setup-test ## generate proto/palomar_pb from the .proto files
	@$(PY) proto/generate.py

demo: setup ## a cluster of three nodes, a demo application and a live flow table (DEMO_SECONDS=30 ends it)
	@$(PY) -m lab.demo

test: setup-test ## every test: pure, BPF units, namespaces, one story on a whole lab
	@$(PY) -m pytest -q

test-root: setup-test ## only the tests that need root
	@$(PY) -m pytest -q -m "root or bpf or e2e"

check: setup-test ## format, lint, types, import contracts, generated files, docs
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	$(PY) proto/generate.py --check
	$(PY) -m pytest -q tests/house

bench: setup-test ## ratios against a baseline of the same run
	@$(PY) -m tests.bench.main

wheel: setup-test ## a wheel with the BPF objects inside
	uv build --wheel --quiet

clean: ## remove what was built, keep the environment
	rm -rf dist build datapath/objects artefacts .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
