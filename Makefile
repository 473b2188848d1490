# make help lists the targets. Each sets up what it needs; nothing is installed outside .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LINTED := .venv/.imports

# A worker takes tests from the one that has most left. There is one more than there are cores: tests that wait for a
# process leave their core to others.
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell expr $(CORES) + 1)
PYTEST := $(BIN)/python -m pytest --dist=worksteal --numprocesses

# Without a cache of compiled modules each of the hundred processes that tests start would compile the bot anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test unit began bench simulate mutants fuzz pictures lint format lock images bases clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1|/' | column -t -s '|'

$(STAMP): requirements/uv.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("NOMADS needs Python 3.11 or newer; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	@touch $(STAMP)

demo: $(STAMP)  ## the whole way on this machine: stand-ins, bot, one job (ONCE=1 ends after it)
	$(BIN)/python -m sandbox demo $(if $(ONCE),--once)

test: $(STAMP) began lint  ## everything that must be true: lint, types, import rules, all tests (ARGS="tests/unit -k x")
	@$(scratch); $(PYTEST)=$(WORKERS) $(ARGS); $(call told,make test,5 min)

unit: $(STAMP) began  ## the tests that need neither a process nor a server
	@$(PYTEST)=$(CORES) $(or $(ARGS),tests/unit); $(call told,make unit,45 s)

# Tests commit to hundreds of small databases. In memory, where there is plenty, no commit waits for the disk, on which
# images are built meanwhile. The folder goes with the shell, so that a run that is interrupted leaves nothing in memory.
MEMORY = $(shell $(PYTHON) -c 'import os, shutil; m = "/dev/shm"; print(m if os.path.isdir(m) and shutil.disk_usage(m).free > 8e9 else "")')
scratch = $(if $(TMPDIR),:,$(or $(foreach m,$(MEMORY),export TMPDIR=$$(mktemp -d -p $(m)); trap 'rm -rf "$$TMPDIR"' EXIT; trap 'exit 1' INT TERM),:))

began: $(STAMP)
	@date +%s > .venv/.began

# How long it took, whether or not all went well; a slow machine is no failure.
told = ended=$$?; took=$$(( $$(date +%s) - $$(cat .venv/.began) )); \
	echo "$(1): $$(( took / 60 )) min $$(( took % 60 )) s (goal: under $(2) on 2 cores)"; exit $$ended

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > $(LINTED) || (cat $(LINTED); exit 1)
	$(BIN)/hadolint Dockerfile pipelines/Dockerfile
	$(BIN)/cfn-lint --regions us-east-1 eu-west-2 -- deploy/nomads.yaml

format: $(STAMP)  ## put every file in order
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure what is called fast (NAME="modal forms" measures some); exit 1 if a goal is missed
	$(BIN)/python -m bench $(NAME)

fuzz: .venv/.fuzz  ## read what others write in any shape, led by what it reaches, for MINUTES=10; keeps tests/corpus
	@$(scratch); $(BIN)/python -m tests.support.fuzzing --minutes $(or $(MINUTES),10) $(NAME)

.venv/.fuzz: $(STAMP) requirements/fuzz.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/fuzz.txt
	@touch $@

simulate: $(STAMP)  ## a lab in which everything fails, by 10,000 seeds (SEEDS=N, FROM=M); exit 1 if a promise is broken
	@$(scratch); $(BIN)/python -m simulation --seeds $(or $(SEEDS),10000) --from $(or $(FROM),1)

mutants: $(STAMP)  ## break the rules in 2,380 places; exit 1 if no test notices one and tests/mutants lists no reason (ARGS="--only …")
	@$(scratch); $(BIN)/python -m tests.mutants $(ARGS)

pictures: $(STAMP)  ## take the screenshots of View in 3D and of the sections, in docs/ (FOLDER=elsewhere)
	$(BIN)/python -m sandbox pictures $(if $(FOLDER),--folder $(FOLDER))

lock: $(STAMP)  ## resolve pyproject.toml again into requirements/
	echo 'uv' | $(BIN)/uv pip compile $(LOCK) - -o requirements/uv.txt
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements/bot.txt
	$(BIN)/uv pip compile $(LOCK) --group pipelines -o requirements/pipelines.txt
	$(BIN)/uv pip compile $(LOCK) --group fuzz -o requirements/fuzz.txt
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --group pipelines --group dev -o requirements/dev.txt
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

images: $(STAMP)  ## build the images with Docker or buildah, each with a bill of materials, in var/images (ARGS="--fresh")
	$(BIN)/python -m deploy.images $(ARGS)

bases: $(STAMP)  ## pin the images that ours begin from to what their tags name today, in deploy/bases.env
	$(BIN)/python -m deploy.bases

clean:  ## forget what was set up and what the demo kept
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
