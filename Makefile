# A newcomer needs `make demo` and `make test`; `make help` lists the other targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
KERNEL := $(VENV)/etc/ipython/ipython_kernel_config.json
PAPERMILL := $(BIN)/papermill --no-progress-bar --log-level WARNING
# A file's tests share its fixtures, so a file stays in one of the two processes.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# The unit tests of one shard, from catalog to encoded clips; not those that wait for servers that hang.
QUICK := $(addprefix tests/,catalog plan pipeline segment store test_config.py test_layers.py) \
	--ignore tests/pipeline/test_web_places.py --ignore tests/pipeline/test_tones.py

.PHONY: help demo quick test test-all test-failed lab docs bench gpu-check lint clean

help:
	@echo "make demo      process a speech corpus in five languages, with reports, in demo/"
	@echo "make quick     the unit tests of one shard, from catalog to clips: under a minute"
	@echo "make test      the tests: under 6 minutes on two cores, without root"
	@echo "make test-all  the slow tests and those that need root"
	@echo "make lab       JupyterLab on notebooks/"
	@echo "make docs      the guide as a site, in build/docs/index.html"
	@echo "make bench     time the kernels against other libraries, on this machine"
	@echo "make gpu-check  test and time everything on this machine's GPU, in eight minutes"
	@echo "make lint      ruff, and mypy --strict on audiopipe/"

# Bytecode is compiled once: on some systems the many processes that import torch cannot store it. So are the kernels:
# the first processes that need one would each spend ten seconds on it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "audiopipe needs Python 3.11.5 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m audiopipe.kernels.precompile
	@touch $@

# A notebook's kernel warns at each start that its messages are not encrypted; they stay on this machine and are signed.
# It also logs an error if papermill's request to shut down, which starts with an interrupt, arrives during a message.
$(KERNEL): | $(READY)
	@mkdir -p $(@D)
	@echo '{"IPKernelApp": {"log_level": "CRITICAL"}}' > $@

demo: $(READY) $(KERNEL)
	@mkdir -p demo/reports
	$(BIN)/audiopipe demo demo/corpus
	$(PAPERMILL) notebooks/run.ipynb demo/reports/run.ipynb \
		-p catalog demo/corpus/catalog.parquet -p output demo/output -p shard_videos 4 \
		-p max_failed_share 1
	@$(MAKE) --no-print-directory demo/reports/quality.html
	@$(BIN)/audiopipe html demo/reports/run.ipynb demo/reports/run.html --print summary
	@echo "reports   demo/reports/index.html"

# The reports are made only if the dataset or the notebooks have changed.
demo/reports/quality.html: demo/output/dataset.json notebooks/progress.ipynb notebooks/quality.ipynb
	$(BIN)/audiopipe report demo/output --to demo/reports

quick: $(READY)
	$(PYTEST) -m "not slow and not privileged and not bulk" $(QUICK)

test: $(READY)
	$(PYTEST) -m "not slow and not privileged"

test-all: $(READY)
	$(PYTEST) -m "slow or privileged"

# Runs the tests that failed last time, one after the other: do they fail on a machine that does nothing else?
test-failed: $(READY)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none

lab: $(READY) $(KERNEL)
	$(BIN)/jupyter lab --notebook-dir=notebooks

# Warnings are errors. Internal links are checked; addresses of other hosts are listed in build/docs/external_links.txt.
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -j auto notebooks/guide build/docs
	@echo "guide     build/docs/index.html"

bench: $(READY)
	$(BIN)/audiopipe bench kernels --save

gpu-check: $(READY)
	cluster/gpu_check.sh check-here

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
