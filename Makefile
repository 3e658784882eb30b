# quickstart  set up, train on generated scenes, evaluate, draw pictures (runs/quickstart)
# test        set up, then lint and every test
# lint        ruff and the type checker
# bench       set up, then see that nothing has become slower beside its peers (benchmarks/README.md)
# clean       remove what these targets made, not your runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test lint bench clean

quickstart: $(READY)
	$(BIN)/python tools/prepare_data.py shapes --output data/shapes --train 2000 --val 200 --size 256 256
	$(BIN)/python tools/train.py configs/quickstart.yaml --resume
	$(BIN)/python tools/predict.py runs/quickstart/checkpoints/best.pt 'data/shapes/val/00000*.jpg' --output runs/quickstart/predictions
	@echo "numbers: runs/quickstart/eval.json   pictures: runs/quickstart/pictures/overview.jpg, curves.png"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/run.py loss assign postprocess data --no-memory --check benchmarks/floors.json
	$(BIN)/python benchmarks/run.py eval --quick --repeats 9 --check benchmarks/floors.json

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find retinanet tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
