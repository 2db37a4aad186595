# Everything a developer or a first user needs; each recipe does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-ceph test-root lint format bench screenshots docs install lock dist image notes clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: install ## start the server on port 9000, in the foreground, with its store in ./store
	$(BIN)/filestored run

test: $(VENV)/.dev ## run the tests
	$(BIN)/python -m pytest

# what depends on the engine; CEPH=tests runs whatever uses a bucket
CEPH ?= tests/blobs tests/bad_days

test-ceph: $(VENV)/.dev ## run the tests about buckets on Ceph (needs ceph-mon, ceph-osd, ceph-common, radosgw)
	TEST_S3=ceph $(BIN)/python -m pytest -m bucket -n 2 $(CEPH)

test-root: $(VENV)/.dev ## run the tests that only root can: sudo make test-root
	$(BIN)/python -m pytest -m root -n 2

lint: $(VENV)/.dev ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## bring the code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure side by side with nginx (needs nginx with its dav module, and wrk)
	$(BIN)/python -m bench $(BENCH)

screenshots: $(VENV)/.dev ## take the pictures of the page in docs/images again (needs chromium)
	$(BIN)/python -m tools.screenshots

docs: $(VENV)/.installed ## write docs/help.md, what every command says to --help
	$(BIN)/python -m tools.paste_help

install: $(VENV)/.installed ## put the program at .venv/bin/filestored

$(VENV)/.installed: requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("filestored needs Python 3.11 or newer: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed requirements/dev.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	touch $@

lock: $(VENV)/.dev ## choose the newest versions of all libraries again
	requirements/lock $(BIN)/uv --upgrade

dist: $(VENV)/.installed ## build the wheel and the source archive into dist
	rm -rf dist
	$(BIN)/python -m hatchling build

image: ## build the container image filestored (needs docker)
	docker build --tag filestored .

notes: $(VENV)/.installed ## print what CHANGELOG.md says of VERSION, for its release
	@$(BIN)/python -m tools.release_notes "$${VERSION:?make notes VERSION=X.Y.Z}"

clean: ## remove what was made, but no store
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
