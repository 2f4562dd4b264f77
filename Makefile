# `make demo` and `make test` are all that a newcomer needs; each makes .venv first.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONSAFEPATH := 1
SHELL := /bin/bash

.PHONY: help install demo test test-all lint format serve docs clean

help:
	@echo "make demo     train, unlearn, score and post the two demo tasks into a local leaderboard"
	@echo "make serve    open that leaderboard on http://127.0.0.1:8000"
	@echo "make test     the tests; make test-all adds the slow ones"
	@echo "make lint     ruff and mypy;  make format  mends what ruff can mend"
	@echo "make docs     the documentation, into site/"
	@echo "make install  only make .venv"

install: .venv/.installed

# uv resolves torch and torchvision together from the ordinary index; never install one of the two alone.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: install
	$(BIN)/forgetbench demo

serve: install
	$(BIN)/forgetbench serve

test: install
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

test-all: install
	$(BIN)/pytest -n auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist site *.egg-info
