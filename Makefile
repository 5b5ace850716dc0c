# Everything below uses .venv of this checkout, and creates it first if needed.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed

.PHONY: setup demo test pytest long wheel fuzz lint proto typescript docs up chaos chaos-brief cluster bench load strangers mutants locks clean

setup: $(STAMP)

# torch first, with its pinned version: otherwise another package decides which build is installed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

up: setup
	$(BIN)/dualprocess up

demo: setup
	$(BIN)/python -m examples.demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python -m tests.check_stubs

test: lint pytest

# Two processes, since many tests wait for something. tests/conftest.py says which tests run in one.
pytest: setup
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

# What takes minutes: several generators and VLMs with a backup, and hosts that come and go.
long: setup
	$(BIN)/python -m pytest -m long

# Builds the package, installs it into an empty environment, and runs the README's five lines there; and
# makes clients with public generators from the OpenAPI document, which run a job.
wheel: setup
	$(BIN)/python -m pytest -m long tests/test_wheel.py tests/openapi

# Kills and stops parts of a real stack while jobs run, and prints the result.
chaos: setup
	$(BIN)/python -m tests.chaos --jobs 40 --seed 1 --minutes 12
	$(BIN)/python -m tests.chaos.scenarios

# Ten faults of the main kinds, close together; CI runs this after the tests.
chaos-brief: setup
	$(BIN)/python -m pytest -m long tests/chaos

# The service over hosts with addresses of their own, which come and go. Needs root, for namespaces.
cluster: setup
	$(BIN)/python -m tests.cluster

# Measures what a step, the wire, questions and a start cost, in ratios and counts; minutes, no GPU.
bench: setup
	$(BIN)/python -m benchmarks --save

# Measures how many requests the REST API can serve on this machine.
load: setup
	$(BIN)/python -m benchmarks.load

# Puts single mistakes into the code, and checks whether the tests notice them.
mutants: setup
	$(BIN)/python -m tests.mutants --save

# Shows what each route of the API answers when a key asks about jobs of another key.
strangers: setup
	$(BIN)/python -m pytest -s tests/orchestrator/test_strangers.py -k walk

# The fuzz tests for longer: ten thousand malformed gRPC calls, two minutes of REST.
fuzz: setup
	$(BIN)/python -m tests.fuzz

PROTOS := dualprocess/v1/tensor.proto dualprocess/v1/vlm.proto dualprocess/v1/generator.proto
# Writes the stubs into OUT; a test writes them into another folder and compares.
OUT ?= .
proto: setup
	$(BIN)/python -m grpc_tools.protoc -I proto \
	    --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	    --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	    --python_out=$(OUT) --grpc_python_out=$(OUT) --mypy_out=$(OUT) --mypy_grpc_out=$(OUT) \
	    $(PROTOS)

# Writes the types of the TypeScript client from the API's OpenAPI document. Needs Node.
typescript: setup
	cd clients/typescript && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/python -m services.orchestrator.api.openapi \
	    | npm --prefix clients/typescript run --silent types > clients/typescript/src/schema.part
	mv clients/typescript/src/schema.part clients/typescript/src/schema.ts
	cd clients/typescript && npm run build && npm run programs

# The documentation: its tables anew from the code, then all of it into site/. Broken links are errors.
docs: setup
	$(BIN)/python -m docs.write
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# What the images install, with hashes: the newest versions that pyproject.toml allows.
LOCK := $(BIN)/uv pip compile pyproject.toml deploy/docker/build.in --constraint constraints.txt \
    --generate-hashes --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-annotate --custom-compile-command "make locks" --default-index https://pypi.org/simple
locks: setup
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --extra ui --extra otel --output-file deploy/docker/orchestrator.lock
	$(LOCK) --extra generator --extra vlm --extra otel --output-file deploy/docker/models.lock
	$(BIN)/python deploy/docker/gpus.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
