# make demo   a college at lunch, on this machine      make test    every check and test there is
# make build  the environment and the extension        make lint    the static checks alone
# make bench  figures of this machine, in 10 minutes   make clean   takes away all that these make
# make publish  puts the figures measured last, and plots of them, into benchmarks/
# make profile  where a purchase's instructions and time go: docs/performance.md and its pictures again (perf, valgrind, inferno)
# make fuzz   coverage-guided fuzzing: SECONDS=60 for each target, or TARGET=message alone
# make chaos  the real process killed ROUNDS=200 times and failed at every system call of its journal; SEED=n repeats one
# make simulate SEEDS=100000 FIRST=1   so many simulated campuses with everything that can break, on all cores;
#                                      SEEDS=1 FIRST=4711 TRACE=1 shows one of them, a line an event
#
# Each target sets up what it needs inside .venv and does again only what has changed. Needed beforehand:
# Python 3.11 or later, a Rust toolchain and a C linker, for tests strace, valgrind, Redis and a C++ compiler; what is missing is named
# before anything is begun.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build
.PHONY: build demo test test-programs chaos simulate lint bench profile publish fuzz fuzz-shortly fuzz-build fuzz-tools clean

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps

# What `make simulate` runs.
SEEDS ?= 10000
FIRST ?= 1

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

test: test-programs fuzz-tools lint
	cargo test --workspace --locked
	@$(MAKE) fuzz-shortly
	python -m pytest

ROUNDS ?= 200
SEED ?=

chaos: test-programs build
	python -m pytest -s tests/test_chaos_*.py --chaos-wide --chaos-rounds=$(ROUNDS) $(if $(SEED),--seed=$(SEED))

# strace stands between tests and the disk. A sandbox may forbid one process to trace another, even its own.
test-programs:
	@command -v valgrind >/dev/null || { \
		echo "make: valgrind is missing, by which tests count instructions; install it (Debian, Ubuntu: apt install valgrind)." >&2; exit 1; }
	@command -v redis-server >/dev/null && command -v redis-cli >/dev/null || { \
		echo "make: Redis is missing, with which tests rehearse the benchmarks; install it (Debian, Ubuntu: apt install redis-server)." >&2; exit 1; }
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
	cd core_rs/fuzz && cargo fmt --check && cargo clippy --lib --bins --examples --locked --quiet --no-default-features --target-dir $(FUZZ)

# Not by `cargo fuzz`: on a stable toolchain it comes down to these flags, and would be one more tool to install and pin. Who has
# it may use it in core_rs all the same (cargo fuzz run -s none message). --target keeps the flags off build scripts.
FUZZ := $(CURDIR)/target/fuzz
FUZZ_TARGETS := frame message authorizer record journal snapshot
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_RUN = "$(FUZZ)/$(FUZZ_HOST)/release/$$target" -artifact_prefix="$(FUZZ)/found/$$target-" -print_final_stats=1
FUZZ_INPUTS = "$(FUZZ)/seeds/$$target" $$(find core_rs/fuzz/regressions -mindepth 1 -maxdepth 1 -name "$$target")
# Executions in `make test`: some seconds of each.
FUZZ_RUNS_frame := 60000
FUZZ_RUNS_message := 60000
FUZZ_RUNS_authorizer := 6000
FUZZ_RUNS_record := 15000
FUZZ_RUNS_journal := 6000
FUZZ_RUNS_snapshot := 15000

# What it finds is written to target/fuzz/found; mend it and keep the input in core_rs/fuzz/regressions.
SECONDS := 60
TARGET := $(FUZZ_TARGETS)
fuzz: fuzz-build
	@for target in $(TARGET); do \
		echo "Fuzzing $$target for $(SECONDS) s."; \
		mkdir -p "$(FUZZ)/corpus/$$target"; \
		$(FUZZ_RUN) -max_total_time=$(SECONDS) -use_value_profile=1 "$(FUZZ)/corpus/$$target" $(FUZZ_INPUTS); \
	done

# The same executions every time, from the seeds and from what was found before; what is new goes into a folder of its own.
fuzz-shortly: fuzz-build
	@$(foreach target,$(FUZZ_TARGETS),target=$(target); log="$(FUZZ)/$$target.log"; new="$(FUZZ)/shortly/$$target"; \
		rm -rf "$$new"; mkdir -p "$$new"; \
		$(FUZZ_RUN) -seed=1 -runs=$(FUZZ_RUNS_$(target)) "$$new" $(FUZZ_INPUTS) >"$$log" 2>&1 || { cat "$$log" >&2; exit 1; }; \
		grep -E '^#[0-9]+.DONE' "$$log" | sed "s/^/fuzz $$target: /";)

fuzz-build: fuzz-tools
	@mkdir -p "$(FUZZ)/found"
	@cd core_rs/fuzz && cargo run --quiet --locked --no-default-features --example seeds --target-dir "$(FUZZ)" -- "$(FUZZ)/seeds"
	@cd core_rs/fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --quiet --locked --release --bins --target $(FUZZ_HOST) --target-dir "$(FUZZ)"

fuzz-tools:
	@command -v c++ >/dev/null || { \
		echo "make: a C++ compiler (c++) is missing, with which libFuzzer is built for fuzzing; install one (Debian, Ubuntu: apt install g++)." >&2; exit 1; }

bench: build
	cargo build --release --locked --quiet -p switch_benchmarks
	python benchmarks/run.py --output target/benchmark.json

publish: build
	python benchmarks/publish.py

# The figures that stay comparable are committed by `benchmarks/instructions.py update`, on purpose only.
profile: build
	python benchmarks/instructions.py show --write
	python benchmarks/flamegraph.py

simulate:
	@cargo run --profile simulator --locked --quiet -p switch_simulator -- --first $(FIRST) --seeds $(SEEDS) $(if $(TRACE),--trace)

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
