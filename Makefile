# kjump: `make run` and `make test` need Python 3.11 to 3.13 with venv, and nothing else.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
# random cases of each architecture in `make oracle`
CASES  ?= 200
# pytest-xdist workers: one per processor by default; JOBS=0 runs in one process
JOBS   ?= auto

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench mutants oracle fuzz-smoke fuzz-check fuzz-sweep kernels linux clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.ready ## jump from kernel A to kernel B and back on four kinds of x86
	@$(BIN)/kjump run --arch all $(ARGS)

test: $(VENV)/.ready-dev ## the test suite
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.ready-dev ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

format: $(VENV)/.ready-dev ## let ruff lay out the Python sources
	@$(BIN)/ruff format .

bench: $(VENV)/.ready ## speed, as ratios measured in this run
	@$(BIN)/kjump bench $(ARGS)

mutants: $(VENV)/.ready-dev ## damage every stub in every small way: are all damages noticed?
	@$(BIN)/kjump mutate all $(ARGS)

oracle: $(VENV)/.ready-dev ## the witnesses: tests against GNU as, gdb, QEMU and KVM, every jump and random ones again there
	@KJUMP_REQUIRE_ORACLES=1 $(BIN)/python -m pytest -n $(JOBS) -m oracle $(ARGS)
	@$(BIN)/kjump oracle --arch all
	@$(BIN)/kjump oracle --arch all --irq identity_mapped
	@$(BIN)/kjump oracle --arch all --fuzz $(CASES)

fuzz-smoke: $(VENV)/.ready ## a few hundred fuzzed cases of each target, the same ones every time
	@for target in entry list jumpbuf cmdline segments regs irq image; do \
	    $(BIN)/kjump fuzz $$target --cases 300 $(ARGS) || exit $$?; done
	@$(BIN)/kjump fuzz --sweep --arch all --transfer copy --handoff stack --cases 200 --jobs $$(nproc)

fuzz-check: $(VENV)/.ready ## fuzz the fuzzer: ten planted bugs, each found within a minute and made small
	@$(BIN)/kjump fuzz --check $(ARGS)

fuzz-sweep: $(VENV)/.ready ## a campaign of every target on every machine, transfer and hand-off (half an hour)
	@$(BIN)/kjump fuzz --sweep --arch all --cases 10000 --jobs $$(nproc) $(ARGS)

kernels: $(VENV)/.ready-dev ## fetch Debian's kernels (apt, as root) and run their own relocate_kernel
	@KJUMP_KERNELS=1 $(BIN)/python -m pytest -m kernels $(ARGS)

linux: $(VENV)/.ready-dev ## boot Debian's kernel, build small ones that jump, and boot those (apt, as root; minutes)
	@KJUMP_LINUX=1 $(BIN)/python -m pytest -m linux $(ARGS)

clean: ## remove the virtual environment, caches and build output
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find emu tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The version and venv checks come first, so that what is missing is named and not guessed from a traceback.
$(VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "make: no '$(PYTHON)' here: install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	    echo "make: $$("$(PYTHON)" --version) will not do: kjump needs 3.11 to 3.13: make PYTHON=python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: this Python cannot make virtual environments: install the package python3-venv" \
	         "(Debian, Ubuntu: apt install python3-venv), then run make again" >&2; exit 2; }
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 2; }

$(VENV)/.ready: pyproject.toml | $(VENV)/bin/python
	@echo "installing kjump into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing kjump and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.ready
