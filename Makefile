# A newcomer needs `make demo` and `make test`; every target creates .venv first if it does not exist.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONSAFEPATH := 1
SHELL := /bin/bash

# Tests start hundreds of processes. Where this is set, each compiles every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo serve test test-unit test-system test-all lint format docs clean wheel-without-faces

help:
	@echo "make install      create .venv with everything that development needs"
	@echo "make demo         train, unlearn, score and submit two small tasks to a local leaderboard"
	@echo "make serve        open that leaderboard at http://127.0.0.1:8000"
	@echo "make test-unit    fast tests, under a minute"
	@echo "make test         all tests except slow and system tests"
	@echo "make test-system  tests that need a browser, PostgreSQL, Slurm, a package index or root"
	@echo "make test-all     every test, slow ones included"
	@echo "make lint         ruff, typos, mypy, import-linter and deptry; make format fixes what ruff can fix"
	@echo "make docs         build the documentation into site/"
	@echo "make wheel-without-faces  build a package into dist/ without the photographs of people"

install: .venv/.installed

# uv resolves torch and torchvision together from one index; never install one of the two alone.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: install
	$(BIN)/forgetbench demo

serve: install
	$(BIN)/forgetbench serve

test-unit: install
	$(BIN)/pytest -n auto -m unit

test: install
	$(BIN)/pytest -n auto --dist worksteal -m "not slow and not system"

test-system: install
	$(BIN)/pytest -n auto --dist worksteal -m "system and not slow"

test-all: install
	$(BIN)/pytest -n auto --dist worksteal

# deptry reads the package and the tests separately: only tests may import development tools.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/lint-imports
	$(BIN)/deptry benchmark datasets leaderboard methods
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The images of people in the package are free to use (NOTICE); this leaves them out.
wheel-without-faces: install
	rm -rf build/without-faces && mkdir -p build/without-faces dist
	git archive HEAD | tar -x -C build/without-faces
	rm build/without-faces/datasets/cmu_faces.npz
	$(BIN)/uv build --wheel --quiet --out-dir dist build/without-faces

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist site *.egg-info
