# `make demo` and `make test` make their own environment in .venv: the first installs what a user needs, the second
# the rest. PYTHON names the interpreter to make it from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# each in one process of its own, two at a time, the longest first
ALONE := lint exports kernels-avx2 kernels-plain exports-no-vnni snippets

.PHONY: demo test $(ALONE) soak peers ray tour docs format clean

demo: $(STAMP)
	$(BIN)/tubelet demo

# OpenVINO and training in one process have crashed (docs/export.md): what exports is tested by itself, snippets too
EXPORTS := tests/test_export.py tests/test_docs.py

# what runs on kernels that processors have or have not: once more as on one without AVX-512, and as on a plain one
KERNELS := $(patsubst %,tests/test_%.py,attention linear model pool precision pyramid shared step_streamer stream windows) \
	-k 'not (compile or export or listed or paper)'
AS_AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
AS_PLAIN := ATEN_CPU_CAPABILITY=default
# OpenVINO does not bear to be told of AVX2 on a processor that has more; this is one without VNNI
AS_NO_VNNI := ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=avx2

# plugins that come with packages of others look at each test, and are for none of them
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -p no:anyio -p no:typeguard
# some systems forbid Python to keep what it compiles: each of hundreds of processes would compile torch anew
unexport PYTHONDONTWRITEBYTECODE

test: $(DEV_STAMP)
	$(MAKE) --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(ALONE)
	$(PYTEST) -n 2 --dist worksteal $(addprefix --ignore=,$(EXPORTS))

exports: $(DEV_STAMP)
	$(PYTEST) tests/test_export.py

snippets: $(DEV_STAMP)
	$(PYTEST) tests/test_docs.py

exports-no-vnni: $(DEV_STAMP)
	$(AS_NO_VNNI) $(PYTEST) tests/test_export.py -k 'int8 or seven_bits or answers'

kernels-avx2: $(DEV_STAMP)
	$(AS_AVX2) $(PYTEST) $(KERNELS)

kernels-plain: $(DEV_STAMP)
	$(AS_PLAIN) $(PYTEST) $(KERNELS)

# the long versions: 20,000 damaged files, 100 kills, 2,000 clips, 100,000 headers, mutations of our own code; an hour
soak: $(DEV_STAMP)
	TUBELET_SOAK=1 $(PYTEST) -n 2 --timeout=7200 tests/test_mutants.py tests/test_killed.py tests/test_parts.py \
		tests/test_bad_files.py tests/test_strangers.py tests/test_health.py tests/test_parts.py tests/test_deploy.py
	TUBELET_NIGHTLY=1 $(PYTEST) -n 2 --timeout=7200 tests/test_sizes.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py

lint: $(DEV_STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# the examples of docs/own-loop.md that need other libraries, in an environment of their own
PEERS ?= .peers
peers:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . transformers accelerate lightning
	$(PEERS)/bin/python tests/own_loop_peers.py

# recipes/ray_predict.py on one machine, in an environment of its own
RAY ?= .ray
ray:
	test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . 'ray[data]'
	OMP_NUM_THREADS=1 $(RAY)/bin/python tests/ray_peers.py

# runs docs/tour.ipynb and stores what its cells show
tour: $(DEV_STAMP)
	$(BIN)/python docs/tour.py

# the API reference, as pages in site/
docs: $(DEV_STAMP)
	$(BIN)/python docs/reference.py site

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# constraints.txt keeps to the build of torch for the processor; leave it out to train on a GPU
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tubelet needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo 'making $(VENV), once: a minute or two'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile -e .
	touch $(STAMP)

$(DEV_STAMP): $(STAMP)
	$(INSTALL) -e '.[dev]'
	touch $(DEV_STAMP)

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
