# Everything a person types. The first call of a target makes what it needs; later calls start in seconds.
PYTHON ?= python3.11
# Which build of torch: empty takes what plain pip finds, see "CPU or CUDA" in the README.
TORCH_INDEX ?=
VENV := .venv
PIP_INSTALL := PYTHONWARNINGS=ignore $(VENV)/bin/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help check format test test-images test-all demo bench bench-quality bench-quality-quick openapi mutants soak lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/demo.stamp: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[service,trainer]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(PIP_INSTALL) --editable '.[service,trainer,dev]'
	touch $@

check: $(VENV)/dev.stamp  ## lint, types and import contracts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/dev.stamp  ## rewrite the code in the house style
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

test: $(VENV)/dev.stamp  ## the default tests: a few minutes on two cores
	$(VENV)/bin/pytest -m 'not slow and not gpu and not images'

test-images: $(VENV)/dev.stamp  ## do what the Dockerfile would, in clean environments
	$(VENV)/bin/pytest -m images

test-all: $(VENV)/dev.stamp  ## every test, long trainings too
	$(VENV)/bin/pytest

demo: $(VENV)/demo.stamp  ## make a shop, train on it, serve it; DATA=folder for your own, PORT=, ONCE=1 to stop after one answer
	$(VENV)/bin/python -m examples.demo $(if $(DATA),--data $(DATA)) $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once)

# Where the datasets of the plans are, and how many processes train beside each other.
TEST_DATA ?= ../shared/data
WORKERS ?= $(shell nproc)

# Where generated catalogues are kept.
WORK ?= build/bench

bench: $(VENV)/demo.stamp  ## what searching and answering cost, 10,000 to a million items; about an hour, a gigabyte in WORK=
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.search --work $(WORK)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.serving --work $(WORK)

bench-quality: $(VENV)/demo.stamp  ## compare all methods; hours, in as many sittings as you like: HOURS=, WORKERS=, TEST_DATA=
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.compare run --plan benchmarks/plans/full.toml --data $(TEST_DATA) --out benchmarks/results/full --workers $(WORKERS) $(if $(HOURS),--hours $(HOURS))

bench-quality-quick: $(VENV)/demo.stamp  ## the same with one seed and few methods, about 20 minutes
	$(PIP_INSTALL) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.compare run --plan benchmarks/plans/quick.toml --data $(TEST_DATA) --out benchmarks/results/quick --workers $(WORKERS) $(if $(HOURS),--hours $(HOURS))

openapi: $(VENV)/dev.stamp  ## write docs/openapi.json
	$(VENV)/bin/python -m service.describe > docs/openapi.json

mutants: $(VENV)/dev.stamp  ## put 40 one-line bugs into a copy of the code: do the tests catch them? about ten minutes
	$(VENV)/bin/python -m tests.run_mutants

soak: $(VENV)/dev.stamp  ## mixed traffic on a real service, MINUTES=10: does memory stay level?
	$(VENV)/bin/python -m benchmarks.soak --minutes $(or $(MINUTES),10)

lock: $(VENV)/dev.stamp  ## write constraints.txt from what is installed and tested
	$(VENV)/bin/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9]+$$//' | grep -vE '^(nvidia-|triton)' > constraints.txt

clean:  ## remove everything that make made
	rm -rf $(VENV) .demo
