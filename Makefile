# Every target sets up what it needs: Python, make and git are enough.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/python -m uv
READY := .venv/.ready
STACK := .venv/.stack
TORCH := 2.13.0
# Nothing is installed, nor used to build what is, but what the lock files have a hash of.
LOCKED := --compile-bytecode --no-deps --require-hashes --require-build-hashes --build-constraints requirements.lock
COMPILE := env -u UV_FIND_LINKS -u UV_TORCH_BACKEND $(UV) pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-annotate --no-header
WITHOUT_TORCH := awk '/^[^ ]/ {skip = /^(nvidia-|triton|cuda-|torch==)/} !skip'
# A file's tests share costly fixtures, so one process takes a whole file; conftest.py puts the longest file first.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder
# make run DOMAIN=DIR runs the domain of another folder, in a home of its own there.
ifdef DOMAIN
export EVERGREEN_DOMAIN := $(abspath $(DOMAIN))
endif
export EVERGREEN_HOME ?= $(or $(EVERGREEN_DOMAIN),$(CURDIR))/.evergreen
export TORCH_EXTENSIONS_DIR := $(CURDIR)/.venv/torch_extensions

# torch: a CPU wheel that pip is told to find locally, else the build that fits this machine (CPU where there is no GPU).
TAG := $(shell $(PYTHON) -c 'import sys; print("cp{}{}".format(*sys.version_info))')
LOCAL_TORCH := $(wildcard $(addsuffix /torch-$(TORCH)*-$(TAG)-*.whl,$(PIP_FIND_LINKS)))
ifneq ($(LOCAL_TORCH),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
else
export UV_TORCH_BACKEND ?= auto
endif

.PHONY: help run ui stack secrets drift test test-all stack-test lint bench docs pictures sbom lock clean

help:  ## Show the targets; run, ui and drift take another domain's folder: DOMAIN=DIR
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)  ## Simulate half a year of records and run the whole graph on them
	@echo "== Simulating records into $(EVERGREEN_HOME)/source"
	@$(BIN)/evergreen simulate --output "$(EVERGREEN_HOME)/source" --from 2024-01-01 --to 2024-06-30 --rate 50 --seed 7 --scenario calm
	@echo "== Running the graph as of 2024-07-01, profile quick"
	@$(BIN)/evergreen run --source "$(EVERGREEN_HOME)/source" --as-of 2024-07-01 --profile quick
	@echo "== Open next: make ui, and the address that it prints"

ui: $(READY)  ## Serve the front door, Dagster and MLflow on 127.0.0.1 until Ctrl-C
	@$(BIN)/evergreen ui

stack: $(STACK)  ## The same on PostgreSQL, Redis, S3 and an MLflow server, of which the last two are started
	@EVERGREEN_HOME="$(EVERGREEN_HOME)-stack" $(BIN)/python -m pipelines.stack serve

secrets: $(READY)  ## Write random passwords for docker-compose.yml into secrets/
	@$(BIN)/python -m pipelines.stack secrets secrets
	@echo "== Open next: docker-compose.yml"

drift: $(READY)  ## Show a change of the world being noticed, learned and overcome (a few minutes)
	@$(BIN)/evergreen demonstrate

test: lint  ## Run the linters and the tests (some ten minutes on two cores)
	@echo "== Testing; make test-all adds the slow ones"
	@$(PYTEST) -m "not slow and not stack" --durations=10
	@echo "== Open next: docs/benchmarks.md for what was measured, make run to see it work"

test-all: $(READY)  ## Run every test that needs no server
	@$(PYTEST) -m "not stack" --durations=20

stack-test: $(STACK)  ## Run the tests of the team's stack, on servers that they start themselves
	@echo "== Testing the stack (some twenty minutes on two cores)"
	@$(PYTEST) -m stack --durations=20
	@echo "== Open next: docs/stack.md, make stack to see it work"

lint: $(READY)  ## Check style and types
	@echo "== Checking style and types"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(STACK)  ## Print the benchmarks' ratios (hours: bench/faults.py alone takes three)
	@$(UV) pip install --quiet --python $(BIN)/python $(LOCKED) --requirement bench/requirements.lock
	@# NannyML's requirements exclude ours, so it has an environment of its own.
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv/nannyml
	@$(UV) pip install --quiet --python .venv/nannyml/bin/python $(LOCKED) --requirement bench/requirements-nannyml.lock
	@for bench in bench/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

docs: $(READY)  ## Build the documentation's site, which needs no network to be read
	@$(UV) pip install --quiet --python $(BIN)/python $(LOCKED) --requirement requirements-docs.lock
	@echo "== Writing the reference of commands and settings into docs/"
	@$(BIN)/python -m assets.settings.reference docs
	@$(BIN)/python -m pipelines.reference > docs/.commands.md && mv docs/.commands.md docs/commands.md
	@echo "== Building the site, with the Python API from docstrings (a minute); a warning is an error"
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build
	@echo "== Open next: docs/_build/index.html"

pictures: $(READY)  ## Take the pictures of the pages in docs/ again, by make run, make drift and Chromium
	@mkdir -p "$(EVERGREEN_HOME)"
	@$(MAKE) --no-print-directory run > "$(EVERGREEN_HOME)/run.txt"
	@$(MAKE) --no-print-directory drift
	@EVERGREEN_HOME="$(EVERGREEN_HOME)/demonstration" $(BIN)/python docs/pictures.py "$(EVERGREEN_HOME)/run.txt"
	@echo "== Open next: docs/gallery.md"

sbom: $(STACK)  ## Write sbom.cdx.json (CycloneDX) and docs/licences.md of what is installed
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv/sbom
	@$(UV) pip install --quiet --python .venv/sbom/bin/python $(LOCKED) --requirement requirements-sbom.lock
	@.venv/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json \
	  $(BIN)/python
	@printf '# Licences\n\nWhat is installed, with its licence; written by `make sbom`.\n\n' > docs/licences.md
	@.venv/sbom/bin/pip-licenses --python $(BIN)/python --format markdown --order license --ignore-packages evergreen \
	  >> docs/licences.md
	@echo "== Open next: sbom.cdx.json, docs/licences.md"

lock: $(READY)  ## Resolve the environments again and write their lock files
	@# torch is left to `make`, for it has a build per kind of machine, and CUDA packages are left to torch.
	@$(COMPILE) pyproject.toml --group dev | $(WITHOUT_TORCH) > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@$(COMPILE) pyproject.toml --all-extras --group stack --constraint requirements.lock | $(WITHOUT_TORCH) \
	  > requirements-stack.lock.new
	@mv requirements-stack.lock.new requirements-stack.lock
	@for name in uv sbom; do $(COMPILE) --group $$name --output-file requirements-$$name.lock; done
	@# The site's packages are installed beside the others.
	@$(COMPILE) --group docs --constraint requirements.lock --output-file requirements-docs.lock

clean:  ## Remove the environment (state in EVERGREEN_HOME stays)
	@rm -rf .venv

$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@echo "== Installing the environment into .venv from requirements.lock"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock
	@$(UV) pip install --python $(BIN)/python $(LOCKED) --requirement requirements.lock
	@$(UV) pip install --compile-bytecode --python $(BIN)/python torch==$(TORCH)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(STACK): $(READY) requirements-stack.lock
	@echo "== Adding the clients and servers of the team's stack to .venv, from requirements-stack.lock"
	@$(UV) pip install --python $(BIN)/python $(LOCKED) --requirement requirements-stack.lock
	@touch $(STACK)
