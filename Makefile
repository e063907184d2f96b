# `make demo` and `make test` are all that a newcomer types; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
KERNEL := $(VENV)/etc/ipython/ipython_kernel_config.json
PAPERMILL := $(BIN)/papermill --no-progress-bar --log-level WARNING

.PHONY: help demo test quick test-all lab bench lint clean

help:
	@echo "make demo      a speech corpus in five languages through the whole pipeline, with reports, in demo/"
	@echo "make test      the tests, under 6 minutes on two cores, no root"
	@echo "make quick     unit tests of one shard's way from catalog to commit, under a minute"
	@echo "make test-all  the slow and the privileged tests"
	@echo "make lab       JupyterLab on notebooks/"
	@echo "make bench     kernels beside other libraries, on this machine"
	@echo "make lint      ruff, and mypy --strict on audiopipe/"

# Compiled once, and not by each of the many processes that import torch: some systems let none of them keep it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "audiopipe needs Python 3.11.5 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

# A notebook's kernel warns at each start that it talks without encryption. It talks on this machine alone, and to those
# who know its key.
$(KERNEL): | $(READY)
	@mkdir -p $(@D)
	@echo '{"IPKernelApp": {"log_level": "ERROR"}}' > $@

demo: $(READY) $(KERNEL)
	@mkdir -p demo/reports
	$(BIN)/audiopipe demo demo/corpus
	$(PAPERMILL) notebooks/run.ipynb demo/reports/run.ipynb \
		-p catalog demo/corpus/catalog.parquet -p output demo/output -p shard_videos 4
	@$(MAKE) --no-print-directory demo/reports/progress.html demo/reports/quality.html
	@$(BIN)/audiopipe export demo/reports/run.ipynb demo/reports/run.html --print summary
	@echo "reports   demo/reports/index.html"

# The reports are made again only when the dataset has changed.
demo/reports/%.html: demo/output/dataset.json notebooks/%.ipynb
	$(PAPERMILL) notebooks/$*.ipynb demo/reports/$*.ipynb -p output demo/output
	$(BIN)/audiopipe export demo/reports/$*.ipynb $@

# A file's tests share its fixtures, so a file stays in one of the two processes.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
QUICK := $(addprefix tests/,catalog dataset plan pipeline segment store test_config.py test_layers.py)

test: $(READY)
	$(PYTEST) -m "not slow and not privileged"

quick: $(READY)
	$(PYTEST) -m "not slow and not privileged" $(QUICK)

test-all: $(READY)
	$(PYTEST) -m "slow or privileged"

lab: $(READY) $(KERNEL)
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(READY)
	$(BIN)/audiopipe bench kernels --save

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
