# quickstart  set up, train on generated scenes, evaluate, draw pictures (runs/quickstart)
# quick       set up, then lint, types and the unit tests: a minute
# test        set up, then lint, types and every test
# lint        ruff and the type checker
# torture     set up, then try what chance decides about reliability many times: 20 minutes (docs/reliability.md)
# docs        set up, then build the documentation site: build/site/docs/index.html
# audit       look up known vulnerabilities of the pinned packages, where an advisory source can be reached
# lock        write the lock files anew, after a change of requirements.txt (needs uv: pip install uv)
# bench       set up, then check that nothing has become slower compared with its peers (benchmarks/README.md)
# clean       remove what these targets made, but not your runs
#
# PYTHON=PATH      the Python that makes the environment
# TORCH_INDEX=URL  take torch and torchvision from this index, for example one of wheels without CUDA; all other
#                  packages come from pip's own and are checked against the hashes in requirements.lock
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Processes that test; each computes with one thread.
WORKERS ?= 2
# A file's tests share what they make, so they stay in one process. Bytecode is kept, else each process compiles anew.
PYTEST = OMP_NUM_THREADS=1 TORCH_CPP_LOG_LEVEL=ERROR PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: quickstart quick unit test all lint torture docs audit lock bench clean

quickstart: $(READY)
	$(BIN)/retinanet data shapes --output data/shapes --train 2000 --val 200 --size 256 256
	$(BIN)/retinanet train quickstart --resume
	$(BIN)/retinanet predict runs/quickstart/checkpoints/best.pt 'data/shapes/val/00000*.jpg' --output runs/quickstart/predictions --overwrite
	@echo "numbers: runs/quickstart/eval.json   pictures: runs/quickstart/pictures/overview.jpg, curves.png"

quick: $(READY)
	@$(MAKE) --no-print-directory -j 2 lint unit

unit: $(READY)
	$(PYTEST) -q -m 'not slow'

# The linters use one process, so they run next to the tests.
test: $(READY)
	@$(MAKE) --no-print-directory -j 2 lint all

all: $(READY)
	$(PYTEST) --durations=20

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests of what chance does not decide come first; the whole run takes under an hour on two cores.
torture: $(READY)
	$(PYTEST) -q tests/run tests/training/test_resume.py tests/training/test_lost_ranks.py tests/training/test_engine.py \
	  tests/data/test_loader.py tests/interop/test_damaged_weights.py tests/interop/test_pickle_attacks.py \
	  tests/export/test_damaged_exports.py tests/diagnostics/test_replay.py tests/commands/test_border.py \
	  tests/test_hostile_text.py tests/test_distributed.py tests/test_compile.py tests/test_makefile.py
	HYPOTHESIS_PROFILE=nightly HYPOTHESIS_EXAMPLES=500 $(PYTEST) -q -k properties
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture_ranks

docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -b html -c docs . build/site
	@echo "site: build/site/docs/index.html"

# What torch needs of CUDA is in a file of its own, because an index without CUDA has other files with other hashes.
LOCKS := requirements.lock requirements-torch.lock

lock:
	uv pip compile --quiet requirements.txt --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' -o all.lock
	@awk 'BEGIN { out = "requirements.lock" } \
	  /^#/ { print > "requirements.lock"; print > "requirements-torch.lock"; next } \
	  /^[a-z]/ { out = ($$0 ~ /^(torch|torchvision|triton|nvidia-|cuda-)/) ? "requirements-torch.lock" : "requirements.lock" } \
	  { print > out }' all.lock && rm all.lock

ADVISORIES := https://api.osv.dev/v1/vulns/GHSA-mq26-g339-26xf

audit:
	@$(PYTHON) -c 'import urllib.request as u; u.urlopen("$(ADVISORIES)", timeout=20)' 2>/dev/null || \
	  { echo "audit: skipped, because $(ADVISORIES) cannot be reached"; exit 0; } && \
	  { test -x $(VENV)/audit/bin/python || $(PYTHON) -m venv $(VENV)/audit; } && \
	  $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 && \
	  $(VENV)/audit/bin/python -m pip_audit --disable-pip --require-hashes --strict --vulnerability-service osv --progress-spinner off $(LOCKS:%=-r %)

bench: $(READY)
	$(BIN)/python benchmarks/run.py loss assign postprocess data --no-memory --check benchmarks/floors.json
	$(BIN)/python benchmarks/run.py eval --quick --repeats 9 --check benchmarks/floors.json

$(READY): requirements.txt $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP_INSTALL) --no-deps --index-url '$(TORCH_INDEX)' $(shell grep '^torch' requirements.txt))
	$(PIP_INSTALL) --require-hashes $(if $(TORCH_INDEX),,-r requirements-torch.lock) -r requirements.lock
	$(PIP_INSTALL) --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find retinanet tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
