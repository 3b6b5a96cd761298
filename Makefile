# `make demo` and `make test` set up everything they need in .venv.
# PYTHON=... names the interpreter (>= 3.11), ARGS=... goes to the program that is run.

VENV := .venv
PY := $(VENV)/bin/python
export PYTHON
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: help demo test mutate
.DEFAULT_GOAL := help

help:
	@echo 'make demo                     train a small language model with and without tricks'
	@echo 'make test                     lint, types, tests, notebooks'
	@echo 'make mutate [FAMILY=losses]   change the formulas and see whether the tests notice'
	@echo
	@echo 'PYTHON=python3.12 picks the interpreter; make demo ARGS="--help" shows its flags.'

demo:
	@sh .ci/venv $(VENV) experiments
	$(PY) -m experiments.lm $(ARGS)

test:
	@sh .ci/venv $(VENV) dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m basedpyright --pythonpath $(PY) jaxtricks
	$(PY) -m pytest -n auto --maxprocesses 8 --dist loadgroup --nbmake $(ARGS)

mutate:
	@sh .ci/venv $(VENV) dev
	$(PY) -m tests.mutate $(FAMILY)
