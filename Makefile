# Every command of this project. The first call of a target installs what it needs; later calls start in seconds.
PYTHON ?= python3.11
# Compiled modules and rewritten assertions are kept, also where the environment forbids it.
export PYTHONDONTWRITEBYTECODE :=
# Which build of torch: empty takes what plain pip finds, see docs/quickstart.md.
TORCH_INDEX ?=
VENV := .venv
PIP_INSTALL := PYTHONWARNINGS=ignore $(VENV)/bin/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help check format test test-e2e test-images test-all demo demo-swap attack bench bench-training bench-quality bench-quality-quick bench-esans openapi mutants soak lock docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/demo.stamp: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[service,trainer]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(PIP_INSTALL) --editable '.[service,trainer,dev,docs]'
	touch $@

check: $(VENV)/dev.stamp  ## lint, types and import contracts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/dev.stamp  ## format the code and apply automatic fixes
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# Test processes; each takes about a core.
TEST_WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/pytest -n $(TEST_WORKERS) --dist loadfile

test: $(VENV)/dev.stamp  ## run the default tests: a few minutes on two cores
	$(PYTEST) -m 'not slow and not gpu and not images and not attack and not docs and not e2e'

test-e2e: $(VENV)/dev.stamp  ## run end-to-end tests: a whole shop, real data, browsers, several ranks; two minutes
	$(PYTEST) -m 'e2e and not slow and not gpu'

test-images: $(VENV)/dev.stamp  ## run the Dockerfile's steps in clean environments
	$(VENV)/bin/pytest -m images

attack: $(VENV)/dev.stamp  ## attack a running service and print what it costs; about five minutes
	$(VENV)/bin/pytest -m attack -s tests/attack

test-all: docs  ## run every test, including slow ones
	$(VENV)/bin/pytest

demo: $(VENV)/demo.stamp  ## generate a shop, train, publish and serve; DATA=folder for your own data, PORT=, ONCE=1 to stop after one result
	$(VENV)/bin/python -m examples.demo $(if $(DATA),--data $(DATA)) $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once)

demo-swap: $(VENV)/demo.stamp  ## replace the cluster map while a training run samples from it
	$(VENV)/bin/python -m examples.demo_swap

# Where the datasets of the studies are, and how many processes train in parallel.
TEST_DATA ?= ../shared/data
WORKERS ?= $(shell nproc)

# Where generated catalogues are kept.
WORK ?= build/bench

bench: $(VENV)/demo.stamp  ## benchmark search and serving, 10,000 to 1,000,000 items; about an hour, 1 GB in WORK=
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.search --work $(WORK)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.serving --work $(WORK)

bench-training: $(VENV)/demo.stamp  ## measure training steps and whole runs, 10,000 to 10,000,000 items; about four hours, 30 GB in WORK=
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.training_steps --items 10000 100000 1000000 10000000
	mkdir -p $(WORK)
	$(VENV)/bin/python -m benchmarks.large_run --items 1000000 --interactions 5000000 --kills 5 --work $(WORK)
	$(VENV)/bin/python -m benchmarks.large_run --items 10000000 --interactions 5000000 --work $(WORK)

bench-quality: $(VENV)/demo.stamp  ## compare all samplers; about 12 hours of CPU, resumable: HOURS=, WORKERS=, TEST_DATA=, STUDY=default
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.compare run --study benchmarks/studies/$(or $(STUDY),full).toml --data $(TEST_DATA) --out benchmarks/results/$(or $(STUDY),full) --workers $(WORKERS) $(if $(HOURS),--hours $(HOURS))

bench-quality-quick: $(VENV)/demo.stamp  ## compare a few samplers with one seed; about 20 minutes
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.compare run --study benchmarks/studies/quick.toml --data $(TEST_DATA) --out benchmarks/results/quick --workers $(WORKERS) $(if $(HOURS),--hours $(HOURS))

bench-esans: $(VENV)/demo.stamp  ## compare samplers on shops of 100,000 items; about 4 hours of CPU, resumable: HOURS=, WORKERS=, SHOPS=, STUDY=batch-size|million
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.compare run --study benchmarks/studies/$(or $(STUDY),scale).toml --data $(or $(SHOPS),build/shops) --out benchmarks/results/$(or $(STUDY),scale) --workers $(WORKERS) $(if $(HOURS),--hours $(HOURS))

docs: $(VENV)/dev.stamp  ## build the documentation site into build/docs and test it; warnings are errors
	$(VENV)/bin/sphinx-build -E -W --keep-going -q -b html docs build/docs
	$(VENV)/bin/pytest -q -m docs tests/docs

openapi: $(VENV)/dev.stamp  ## write docs/openapi.json
	$(VENV)/bin/python -m service.describe > docs/openapi.json

mutants: $(VENV)/dev.stamp  ## check that the tests detect 40 injected one-line bugs; about ten minutes
	$(VENV)/bin/python -m tests.run_mutants

soak: $(VENV)/dev.stamp  ## send mixed traffic to a running service and watch its memory; MINUTES=10
	$(VENV)/bin/python -m benchmarks.soak --minutes $(or $(MINUTES),10)

lock: $(VENV)/dev.stamp  ## write constraints.txt from the installed versions
	$(PIP_INSTALL) --editable '.[bench]'
	$(VENV)/bin/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9]+$$//' | grep -vE '^(nvidia-|triton)' > constraints.txt

clean:  ## remove everything that make created
	rm -rf $(VENV) .demo build/docs
