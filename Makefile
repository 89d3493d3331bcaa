# make demo   install, segment the orthophoto of docs/demo, draw the picture, print the score
# make demo-train   train on that orthophoto for a few minutes, draw the curves
# make test   install, run the tests
# make check  what CI runs: lint, tests, docs
#
# PYTHON=python3.12 chooses the interpreter. A CPU-only machine can spare itself the CUDA libraries:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
CONSTRAINTS = .ci/constraints.txt

.PHONY: install install-dev demo demo-train bundled-model test test-all lint format reference docs check bench clean

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "fcntile needs Python 3.10 to 3.13; choose one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 has no venv: install it (Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/installed: $(VENV)/bin/python setup.cfg $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[all]"
	@touch $@

demo: install
	$(BIN)/fcntile predict docs/demo/philippines_1.tif -o mask.tif --overwrite
	$(BIN)/python docs/demo/picture.py docs/demo/philippines_1.tif mask.tif \
	  docs/demo/philippines_1_label.tif -o demo.png

# A few minutes on two CPU cores. (The bundled model has never seen this place; this one knows no other.)
demo-train: install
	$(BIN)/fcntile train docs/demo/philippines_1.tif docs/demo/philippines_1_label.tif \
	  -o demo.safetensors --classes docs/bundled_model/classes.csv --overwrite \
	  --loss ce+0.5*dice --steps 300 --window 128 --warmup 30
	@echo "the model is demo.safetensors; look at demo.run/curves.png and demo.run/samples/"

# Train the bundled model again. DATA is a folder with the orthophotos of docs/bundled_model/README.md.
bundled-model: install
	$(BIN)/fcntile train "$(DATA)" "$(DATA)/*_label.tif" -o buildings.safetensors \
	  --classes docs/bundled_model/classes.csv --loss ce+0.5*dice --scale 1.5 --steps 2500 \
	  --val-share 0 --licence "CC-BY-4.0 (imagery), ODbL-1.0 (labels)" \
	  --attribution "imagery OpenAerialMap contributors, labels OpenStreetMap contributors"

test: install
	$(BIN)/python -m pytest --quiet --numprocesses auto --maxprocesses 4

# Everything, the slow tests too: minutes to hours.
test-all: install
	$(BIN)/python -m pytest -m "not gpu"

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/cog --check docs/cli-reference.md docs/models.md

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The command line's help and the table of networks, into the docs.
reference: install-dev
	$(BIN)/cog -r docs/cli-reference.md docs/models.md

docs: install-dev
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

check: lint test docs

# Figures for docs/benchmarks.md: whole runs, side by side; tests/bench/README.md has its sections and
# how long they take. pytorch-toolbelt comes without what it requires: its tile merger needs no torchvision.
bench: install
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test,bench]"
	-$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps pytorch-toolbelt
	$(BIN)/python tests/bench/bench.py $(BENCH)

clean:
	rm -rf $(VENV) docs/_build build *.egg-info mask.tif mask.tif.aux.xml demo.png demo.safetensors demo.run
