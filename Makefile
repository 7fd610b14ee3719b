# Every target is one call of `winnow`; the environment is made when it is missing or out of date.
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

.DEFAULT_GOAL := help
.PHONY: help demo select generate distill teacher inspect bench check docs test test-slow

help: ## this list
	@echo "winnow: curate unlabeled images with a trained teacher, distil students from the shards"
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

demo: $(READY) ## the main job on a world drawn by code, in minutes, without a download
	$(WINNOW) demo --runs $(RUNS)/demo $(ARGS)

select: $(READY) ## curate shards from CORPUS with TEACHER
	$(if $(CORPUS),,$(error say CORPUS=: a name that `winnow corpora` lists, or a path))
	$(WINNOW) select --runs $(RUNS) -n $(N) $(if $(CORPUS),--corpus '$(CORPUS)') $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(METHOD),--method '$(METHOD)') $(if $(SET),--set '$(SET)') $(ARGS)

generate: $(READY) ## train a generator on SHARDS and write N synthetic images as shards
	$(if $(SHARDS),,$(error say SHARDS=: a directory that select wrote))
	$(WINNOW) generate --runs $(RUNS) --shards '$(SHARDS)' -n $(N) $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(SET),--set '$(SET)') $(ARGS)

distill: $(READY) ## train STUDENTS from SHARDS (default: the last ones that select wrote)
	$(WINNOW) distill --runs $(RUNS) $(if $(SHARDS),--shards '$(SHARDS)') $(if $(TEACHER),--teacher '$(TEACHER)') $(if $(METHOD),--method '$(METHOD)') $(if $(STUDENTS),--student '$(STUDENTS)') $(if $(SET),--set '$(SET)') $(if $(EVAL),--eval '$(EVAL)') $(ARGS)

teacher: $(READY) ## import a teacher: BUILDER WEIGHTS CLASSES [OUT]
	$(if $(and $(BUILDER),$(WEIGHTS),$(CLASSES)),,$(error say BUILDER= WEIGHTS= CLASSES=))
	$(WINNOW) import-teacher --builder '$(BUILDER)' --weights '$(WEIGHTS)' --classes '$(CLASSES)' $(ARGS) '$(OUT)'

inspect: $(READY) ## say what the last shards (or SHARDS) are
	$(WINNOW) inspect $(if $(SHARDS),'$(SHARDS)',"$$($(BIN)/python -c 'import json; print(json.load(open("$(RUNS)/last-shards.json"))["shards"])')")

bench: $(READY) ## the benchmarks that SHARDS, CORPUS, EVAL with TEACHER (a directory) allow, and one table
	$(BIN)/python -m benchmarks.coldstart
	$(BIN)/python -m benchmarks.decode
	$(if $(and $(CORPUS),$(TEACHER)),$(BIN)/python -m benchmarks.embed --corpus '$(CORPUS)' --teacher '$(TEACHER)')
	$(if $(and $(SHARDS),$(TEACHER)),$(PEER) -m benchmarks.distill --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(SHARDS),$(TEACHER)),$(BIN)/python -m benchmarks.students --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(SHARDS),$(TEACHER)),$(BIN)/python -m benchmarks.stream --shards '$(SHARDS)' --teacher '$(TEACHER)' $(ARGS))
	$(if $(and $(CORPUS),$(EVAL),$(TEACHER)),$(BIN)/python -m benchmarks.wholejob --corpus '$(CORPUS)' --eval '$(EVAL)' --teacher '$(TEACHER)' -n $(N))
	$(BIN)/python -m benchmarks.table

check: $(READY) ## formatting, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) ## the documentation: open docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -j 2 docs docs/_build/html

test: $(READY) ## the test suite, a worker per core; ARGS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope -m 'not slow' $(ARGS)

test-slow: $(READY) ## the tests that take long: several processes, the demo in small, the wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope -m slow $(ARGS)
