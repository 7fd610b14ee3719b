# Most targets call `winnow` once. The environment is created if it is missing or out of date.
PYTHON ?= python3
VENV   ?= .venv
RUNS   ?= runs
N      ?= 50000
CORPUS ?=
TEACHER ?=
METHOD ?=
STUDENTS ?=
SHARDS ?=
SET    ?=
EVAL   ?=
ARGS   ?=
BUILDER ?=
WEIGHTS ?=
CLASSES ?=
OUT    ?= $(RUNS)/teachers/teacher

BIN    := $(VENV)/bin
WINNOW := $(BIN)/winnow
READY  := $(VENV)/.ready
PEER   ?= $(BIN)/python

# Without .pyc files each process compiles torch's sources again: 8 CPU-seconds instead of 4.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo select generate distill teacher inspect bench check docs test test-slow

help: ## show this list
	@echo "winnow: curate unlabeled images with a trained teacher, distill students from the shards"
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "variables: CORPUS TEACHER METHOD STUDENTS N SHARDS SET RUNS EVAL ARGS"
	@echo "  make teacher BUILDER=torchvision:resnet50 WEIGHTS=r50.safetensors CLASSES=names.txt"
	@echo "  make select CORPUS=imagenet21k N=200000"
	@echo "  make select CORPUS='/data/{00000..00099}.tar' SET='density_weight=0.2 balance=quota'"
	@echo "  make bench SHARDS=runs/shards/NAME TEACHER=runs/teachers/NAME PEER=python-with-lightning"
	@echo "  make distill STUDENTS='resnet8x4 timm:mobilenetv3_small_050' EVAL=/data/val"

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY) ## run the main job in minutes on images drawn by code, without a download
	$(WINNOW) demo --runs $(RUNS)/demo $(ARGS)

select: $(READY) ## curate shards from CORPUS with TEACHER
	$(if $(CORPUS),,$(error CORPUS is missing; set CORPUS= to a path or to a name that `winnow corpora` lists))
	$(WINNOW) select --runs $(RUNS) -n $(N) $(if $(CORPUS),--corpus '$(CORPUS)') $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(METHOD),--method '$(METHOD)') $(if $(SET),--set '$(SET)') $(ARGS)

generate: $(READY) ## train a generator on SHARDS and write shards of N synthetic images
	$(if $(SHARDS),,$(error SHARDS is missing; set SHARDS= to a directory that `make select` wrote))
	$(WINNOW) generate --runs $(RUNS) --shards '$(SHARDS)' -n $(N) $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(SET),--set '$(SET)') $(ARGS)

distill: $(READY) ## train STUDENTS on SHARDS (default: the last that `make select` wrote)
	$(WINNOW) distill --runs $(RUNS) $(if $(SHARDS),--shards '$(SHARDS)') $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(METHOD),--method '$(METHOD)') $(if $(STUDENTS),--student '$(STUDENTS)') $(if $(SET),--set '$(SET)') $(if $(EVAL),--eval '$(EVAL)') $(ARGS)

teacher: $(READY) ## import a teacher from BUILDER, WEIGHTS and CLASSES into OUT
	$(if $(and $(BUILDER),$(WEIGHTS),$(CLASSES)),,$(error BUILDER, WEIGHTS or CLASSES is missing; set all three: BUILDER= WEIGHTS= CLASSES=))
	$(WINNOW) import-teacher --builder '$(BUILDER)' --weights '$(WEIGHTS)' --classes '$(CLASSES)' $(ARGS) '$(OUT)'

inspect: $(READY) ## describe SHARDS (default: the last that `make select` wrote)
	$(WINNOW) inspect $(if $(SHARDS),'$(SHARDS)',"$$($(BIN)/python -c 'import json; print(json.load(open("$(RUNS)/last-shards.json"))["shards"])')")

bench: $(READY) ## run the benchmarks for the given SHARDS, CORPUS, EVAL and TEACHER (a directory); print one table
	$(BIN)/python -m benchmarks.coldstart
	$(BIN)/python -m benchmarks.decode
	$(if $(and $(CORPUS),$(TEACHER)),$(BIN)/python -m benchmarks.embed --corpus '$(CORPUS)' --teacher '$(TEACHER)')
	$(if $(and $(SHARDS),$(TEACHER)),$(PEER) -m benchmarks.distill --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(SHARDS),$(TEACHER)),$(BIN)/python -m benchmarks.students --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(SHARDS),$(TEACHER)),$(BIN)/python -m benchmarks.stream --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(CORPUS),$(EVAL),$(TEACHER)),$(BIN)/python -m benchmarks.wholejob --corpus '$(CORPUS)' --eval '$(EVAL)' --teacher '$(TEACHER)' -n $(N))
	$(BIN)/python -m benchmarks.table

check: $(READY) ## check the formatting, the lint rules and the types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) ## build the documentation: docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -j 2 docs docs/_build/html

test: $(READY) ## run the test suite with one worker per core; ARGS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope -m 'not slow' $(ARGS)

test-slow: $(READY) ## run the slow tests: several processes, a small demo, the wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m slow $(ARGS)
