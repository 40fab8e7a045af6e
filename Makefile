# Every target first installs the pinned packages into .venv.
RELEASES := 3.11 3.12 3.13
PYTHON ?= $(firstword \
  $(foreach release,$(RELEASES),$(shell command -v python$(release) 2>/dev/null)) python3.11)
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STUDY := --batch-size 16 --bridge-lr 2e-3 --student-lr 2e-3

.PHONY: setup demo study test test-slow check coverage docs bench soak clean

setup: $(READY)

$(READY): constraints.txt setup.cfg pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[dev]'
	touch $(READY)

# The README's commands, on the embedded teacher and problems.
demo: $(READY)
	rm -rf demo
	$(RUN) cli.py extract --cache demo/cache --layers -1,0
	$(RUN) cli.py train --cache demo/cache --run demo/run --controls --epochs 2 --batch-size 16 --bridge-lr 2e-3 --student-lr 2e-3
	$(RUN) cli.py evaluate --run demo/run
	$(RUN) -m pipeline.embedded.problems --unfinished --out demo/unfinished.jsonl
	$(RUN) cli.py extract --dataset demo/unfinished.jsonl --cache demo/prompts --condition prompt
	$(RUN) cli.py train --cache demo/prompts --run demo/prompt-run --condition prompt --controls --epochs 8 --batch-size 16
	$(RUN) cli.py evaluate --run demo/prompt-run

# Every control and baseline over two seeds, on the embedded teacher and problems: docs/RESULTS.md.
study: $(READY)
	rm -rf study
	$(RUN) -m pipeline.embedded.problems --questions 3000 --out study/questions.jsonl
	$(RUN) cli.py extract --dataset study/questions.jsonl --cache study/questions --layers 0
	$(RUN) cli.py train --cache study/questions --run study/gpt-neo --condition none $(STUDY) --epochs 2
	$(RUN) cli.py extract --cache study/cache --layers -1,0,2 --keep-head \
	  --codec bf16 --codec -1:klt --fidelity -1:kl=0.01
	$(RUN) cli.py extract --cache study/random --teacher random:0
	for seed in 0 1; do \
	  $(RUN) cli.py train --cache study/cache --run study/run-$$seed --seed $$seed \
	    --student study/gpt-neo/model $(STUDY) --epochs 5 --controls --control-layers 2 --random-teacher study/random && \
	  $(RUN) cli.py evaluate --run study/run-$$seed --baselines all || exit 1; \
	done
	$(RUN) cli.py evaluate --compare study/run-0 study/run-1 --out study/comparison

check: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: check
	$(RUN) -m pytest -n 3 --dist worksteal -m 'not slow'

# Tests that take minutes: complete jobs, and faults in real processes.
test-slow: $(READY)
	$(RUN) -m pytest -n 3 --dist worksteal -m slow

# Line coverage, including processes that tests start; pages in build/coverage.
coverage: $(READY)
	$(RUN) -m pytest -n 3 --dist worksteal --cov --cov-report=term --cov-report=html

# The documentation as HTML, in build/docs; a warning is an error.
docs: $(READY)
	$(RUN) -m sphinx -q -W -b html docs build/docs

# Ratios to peers and limits, at a size for two cores: the table in docs/BENCHMARKS.md.
bench: $(READY)
	$(INSTALL) --editable '.[bench]'
	$(RUN) benchmarks/all.py --page docs/BENCHMARKS.md

# Twenty minutes of faults: kills, damaged files, repairs.
soak: $(READY)
	PYTHONPATH=. $(RUN) benchmarks/soak.py

clean:
	rm -rf $(VENV) demo study comparison build dist *.egg-info .coverage* .mypy_cache \
	  .ruff_cache .pytest_cache .hypothesis
