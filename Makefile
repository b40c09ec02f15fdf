# The whole developer interface. Every target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: setup wave test test-long test-sky check bench bench-sky format clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,dev]'
	@touch $(STAMP)

wave: $(STAMP)
	@test -e .workspaces/tiny/.git || $(BIN)/autoresearch init .workspaces/tiny --profile tiny
	$(BIN)/autoresearch -C .workspaces/tiny wave --clusters 2 --infra local
	$(BIN)/autoresearch -C .workspaces/tiny plot

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# Whole studies, which take minutes each.
test-long: $(STAMP)
	$(BIN)/python -m pytest tests/long

# Against a real SkyPilot on a real Slurm, on this machine (tests/rig/up); a machine that cannot have one says why.
# SKY=tests/sky/test_study.py takes a part of it.
SKY ?= tests/sky
test-sky: $(STAMP)
	$(call in_the_rig,$(BIN)/python -m pytest $(SKY) -q -p no:cacheprovider)

bench-sky: $(STAMP)
	$(call in_the_rig,$(BIN)/python bench/skypilot.py)

define in_the_rig
	@why=$$(tests/rig/able) || { echo "$@ skipped: $$why"; exit 0; }; \
	begin=$$(date +%s); \
	trap 'tests/rig/down; echo "$@ took $$(( $$(date +%s) - begin )) s"' EXIT; \
	trap 'exit 130' INT TERM; \
	tests/rig/up && tests/rig/in $(1)
endef

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/local.py
	$(BIN)/python bench/scoring.py
	$(BIN)/python bench/probes.py
	$(BIN)/python bench/utilization.py
	$(BIN)/python bench/pruning.py
	$(BIN)/python bench/brief.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/faults.py

clean:
	rm -rf $(VENV) .workspaces .mypy_cache .ruff_cache .pytest_cache
