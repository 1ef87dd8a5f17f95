# Needs Python 3.11 or newer and make, nothing else. `make help` lists the targets.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-vllm check bench bench-cache lock clean start setup lint format types imports model

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOG := build/step-times.tsv

# A folder of this checkout, so that neither the demo nor the tests write anywhere else.
COA_HOME ?= $(CURDIR)/.coa
MODEL ?= smollm2-135m
BOOK ?= examples/novel/the-salt-ledger.txt
QUESTION ?= What was the bow of Orrow's brass key shaped like?
UV_VERSION ?= 0.13.9
# Processes that run the tests; "auto" is one for each core.
WORKERS ?= auto

export COA_HOME BOOK QUESTION
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

# Prints the first interpreter that is new enough; PYTHON=... names one.
FIND_PYTHON = for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then command -v "$$candidate"; exit 0; fi; done; \
	echo "make: no Python 3.11 or newer found (tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python))." \
	"Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1

STEP = $(BIN)/python tests/tools/step.py $(LOG) run
TABLE = $(BIN)/python tests/tools/step.py $(LOG) table

help:
	@echo "make demo    the example novel: inspect it, ask it a question, summarize it (embedded model)"
	@echo "make test    everything: ruff, mypy, import-linter, the whole test suite with the wheel's"
	@echo "make test-vllm  a real vLLM and a real sglang-router on this machine's CPU (3.4 GB in build/vllm, half an hour)"
	@echo "make check   the same without slow tests"
	@echo "make bench   chunking speed, overhead per call, checkpoint size, reading speed"
	@echo "make bench-cache  the prefix cache: index, several questions, prefill-ahead, routing (half an hour)"
	@echo "make lock    constraints.txt anew from pyproject.toml (UPGRADE=1: newest versions)"
	@echo "make format  ruff's formatter and its safe fixes"
	@echo "make clean   removes $(VENV), build, caches and .coa"
	@echo "Variables: PYTHON, COA_HOME, MODEL, BOOK, QUESTION, WORKERS, PYTEST_ARGS"

demo: export COA_MODEL := $(MODEL)
demo: start setup model
	@$(STEP) inspect $(BIN)/coa inspect "$$BOOK"
	@$(STEP) ask $(BIN)/coa ask "$$BOOK" "$$QUESTION"
	@$(STEP) summarize $(BIN)/coa summarize "$$BOOK"
	@$(TABLE)

test: start setup model lint types imports
	@$(STEP) pytest $(BIN)/pytest -q -n $(WORKERS) --dist loadfile --durations=10 --cov --cov-report=term:skip-covered $(PYTEST_ARGS)
	@$(TABLE)

test-vllm: start setup model
	@$(STEP) vllm $(BIN)/python tests/tools/setup_vllm.py build/vllm "$$($(BIN)/python -c 'from coa.testing.models import test_model_path; print(test_model_path())')"
	@COA_TEST_VLLM=$(CURDIR)/build/vllm $(STEP) pytest $(BIN)/pytest -q -s tests/live_vllm $(PYTEST_ARGS)
	@$(TABLE)

check: start setup lint types imports
	@$(STEP) pytest $(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow" $(PYTEST_ARGS)
	@$(TABLE)

bench: start setup model
	@$(STEP) bench $(BIN)/python tests/bench/run.py
	@$(STEP) readers $(BIN)/python tests/bench/readers.py
	@$(TABLE)

bench-cache: start setup model
	@$(STEP) index $(BIN)/python tests/bench/index_latency.py
	@$(STEP) questions $(BIN)/python tests/tools/many_questions.py
	@$(STEP) ahead $(BIN)/python -m tests.bench.prefill_ahead
	@$(STEP) routing $(BIN)/python -m tests.bench.routing
	@$(TABLE)

start:
	@mkdir -p $(dir $(LOG)) && : > $(LOG)

setup: $(READY)

# Compiled here because some machines set PYTHONDONTWRITEBYTECODE, and then every start compiles litellm anew.
# Packages ship files for other Python versions, so its exit code says nothing.
$(READY): constraints.txt pyproject.toml
	@python=$$($(FIND_PYTHON)) || exit 1; \
	step() { "$$python" tests/tools/step.py $(LOG) run "$$@"; }; \
	mkdir -p $(dir $(LOG)); \
	step venv "$$python" -m venv $(VENV) \
	&& step install $(BIN)/python -m pip install -qq --no-compile --require-hashes -r constraints.txt \
	&& step editable $(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e . \
	&& step compile sh -c '$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib >/dev/null 2>&1 || :'
	@touch $@

model: setup
	@$(STEP) model $(BIN)/coa models pull $(MODEL)

lint: setup
	@$(STEP) ruff $(BIN)/ruff check .
	@$(STEP) format $(BIN)/ruff format --check .

types: setup
	@$(STEP) mypy $(BIN)/mypy

imports: setup
	@$(STEP) import-linter $(BIN)/lint-imports

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:
	@python=$$($(FIND_PYTHON)) || exit 1; "$$python" -m venv build/lock
	@build/lock/bin/pip install -qq uv==$(UV_VERSION)
	@build/lock/bin/uv --no-config pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --annotation-style line \
		--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -o constraints.txt
	@echo "constraints.txt: $$(grep -c '==' constraints.txt) packages"

clean:
	rm -rf $(VENV) build dist .coa .coverage htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
