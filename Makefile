# make demo   a college at lunch, on this machine      make test    every check and test there is
# make build  the environment and the extension        make lint    the static checks alone
# make bench  figures of this machine                  make clean   takes away all that these make
# make chaos  the real process killed ROUNDS=200 times and failed at every system call of its journal; SEED=n repeats one
#
# Each target sets up what it needs inside .venv and does again only what has changed. Needed beforehand:
# Python 3.11 or later, a Rust toolchain and a C linker, for tests strace; what is missing is named before anything is begun.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build
.PHONY: build demo test test-programs chaos lint bench clean

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps

# The first Python that is new enough; PYTHON=... on the command line or in the environment chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
RUST_VERSION_MIN := $(shell sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)

CORE_SOURCES := Cargo.toml Cargo.lock core_rs/Cargo.toml $(shell find core_rs/src -type f)

# The environment's tools first, so that what a recipe runs is what the lock file says.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME PYTHONPATH

build: $(STAMPS)/extension

demo: build
	@switch demo

test: test-programs lint
	cargo test --workspace --locked
	python -m pytest

ROUNDS ?= 200
SEED ?=

chaos: test-programs build
	python -m pytest -s tests/test_chaos_*.py --chaos-wide --chaos-rounds=$(ROUNDS) $(if $(SEED),--seed=$(SEED))

# strace stands between tests and the disk. A sandbox may forbid one process to trace another, even its own.
test-programs:
	@command -v strace >/dev/null || { \
		echo "make: strace is missing, by which tests make the disk fail; install it (Debian, Ubuntu: apt install strace)." >&2; exit 1; }
	@refused=$$(strace -o /dev/null true 2>&1) || { \
		echo "make: strace may not trace here ($$refused); allow ptrace (in a container: --cap-add SYS_PTRACE), tests make the disk fail by it." >&2; \
		exit 1; }

lint: build
	@cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 || { \
		echo "make: clippy or rustfmt is missing; add them (rustup component add clippy rustfmt)." >&2; exit 1; }
	ruff check .
	ruff format --check .
	mypy
	python -m mypy.stubtest --concise switch._core
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet
	cargo clippy --workspace --all-targets --locked --quiet --features switch_core/python

bench: build
	cargo build --release --locked --quiet -p switch_benchmarks
	python benchmarks/run.py --output target/benchmark.json

clean:
	rm -rf $(VENV) target dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f switch/_core*.so
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# One sentence for each thing that is missing, all of them at once; run only before something is made.
define prerequisites
missing=0; \
need() { echo "make: $$1" >&2; missing=1; }; \
at_least() { printf '%s\n%s\n' "$$1" "$$2" | sort --check=silent --version-sort; }; \
if [ -z "$(PYTHON)" ]; then \
	need "Python 3.11 or later is missing; install it (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3."; \
elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	need "$(PYTHON) is not Python 3.11 or later; name one that is: make PYTHON=/path/to/python3."; \
elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	need "$(PYTHON) cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv)."; \
fi; \
for tool in cargo rustc; do \
	command -v $$tool >/dev/null || need "$$tool is missing; install a Rust toolchain, $(RUST_VERSION_MIN) or later, by rustup (https://rustup.rs)."; \
done; \
if command -v rustc >/dev/null; then \
	rust=$$(rustc --version | cut -d' ' -f2) || need "rustc does not run; choose a toolchain (rustup default stable)."; \
	at_least "$(RUST_VERSION_MIN)" "$${rust:-$(RUST_VERSION_MIN)}" || need "rustc $$rust is too old; update it to $(RUST_VERSION_MIN) or later (rustup update)."; \
fi; \
command -v cc >/dev/null || need "a C linker (cc) is missing; install one (Debian, Ubuntu: apt install gcc libc6-dev)."; \
exit $$missing
endef

$(BIN)/python:
	@$(prerequisites)
	@echo "Making $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv --clear $(VENV)

$(STAMPS)/packages: requirements.lock | $(BIN)/python
	@echo "Installing what requirements.lock names."
	@python -m pip install --quiet --require-hashes --only-binary :all: --requirement requirements.lock
	@mkdir -p $(STAMPS) && touch $@

# The packages are in place already, so nothing is looked up for this install.
$(STAMPS)/extension: $(STAMPS)/packages pyproject.toml $(CORE_SOURCES)
	@$(prerequisites)
	@echo "Building the core; the first time takes a few minutes."
	@PIP_QUIET=1 maturin develop --release --locked --quiet
	@touch $@
