# Everything that CI does, and what a person wants beside it. `make help` lists the targets.
#
# Servers, tools and the build folder lie outside the clone, so that a fresh clone finds them again:
#   SMARTSCALE_CACHE (default: $XDG_CACHE_HOME/smartscale or ~/.cache/smartscale), its target/ unless CARGO_TARGET_DIR is set.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export SMARTSCALE_CACHE := $(or $(SMARTSCALE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/smartscale)
export CARGO_TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(SMARTSCALE_CACHE)/target)
BIN := $(SMARTSCALE_CACHE)/rig/bin

# $(call part,NAME,COMMAND): runs COMMAND and tells how long it took.
define part
@started=$$SECONDS; echo "── $(1)"; \
{ $(2); }; \
echo "── $(1): $$((SECONDS - started)) s"
endef

## demo: a whole cluster on this machine, simulated; needs Rust alone
.PHONY: demo
demo:
	cargo run --release -- demo

## test: all tests and checks, with what they need installed first (what CI runs)
.PHONY: test
test: tools lint programs infrastructure documentation
	$(call part,tests,cargo test --workspace --quiet --no-fail-fast)
	@echo "── make test: all parts passed"

## tools: installs the servers and tools that the tests need, pinned, once
.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "'cargo' was not found: install Rust 1.95 (https://rustup.rs)" >&2; exit 1; }
	$(call part,tools,tests/rig/install)

## infrastructure: what packaging/ makes on AWS: policies, CloudFormation, Pulumi, the first boot of machines
.PHONY: infrastructure
infrastructure: tools programs
	$(call part,infrastructure,PYTHONDONTWRITEBYTECODE=1 $(SMARTSCALE_CACHE)/rig/infrastructure/venv/bin/pytest --quiet tests/infrastructure)

## documentation: runs every command of README and docs, holds links and the reference of command lines against what is there
.PHONY: documentation
documentation: tools programs
	$(call part,commands and links of the documentation,PYTHONDONTWRITEBYTECODE=1 $(SMARTSCALE_CACHE)/rig/infrastructure/venv/bin/pytest --quiet tests/documentation)

## reference: writes docs/reference, and the outputs that pages show, anew from the code
.PHONY: reference
reference: export UPDATE_GOLDEN := 1
reference: tools programs
	cargo test --quiet --package smartscale-planner --package smartscale-coordinator --package smartscale-agent --lib reference
	cargo test --quiet --package smartscale --test answers documentation
	PYTHONDONTWRITEBYTECODE=1 $(SMARTSCALE_CACHE)/rig/infrastructure/venv/bin/pytest --quiet tests/documentation

## lint: formatting, clippy, licences and sources, the contract, documentation
.PHONY: lint
lint: tools
	$(call part,formatting,cargo fmt --all --check)
	$(call part,contract,$(BIN)/buf lint proto && $(MAKE) contract-compatible)
	$(call part,dependencies,$(BIN)/cargo-deny --log-level error check --hide-inclusion-graph bans licenses sources && $(MAKE) light-programs)
	$(call part,clippy,cargo clippy --workspace --all-targets --quiet -- -D warnings)
	$(call part,documentation,RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet)

# Programs and tests in one go: dependencies are then built once, with one set of features.
.PHONY: programs
programs:
	$(call part,programs,cargo build --workspace --all-targets --quiet)

# The contract must not break whoever speaks the published one (proto/baseline.json, written by `make contract-baseline`).
.PHONY: contract-compatible
contract-compatible:
	@$(BIN)/buf breaking proto --against proto/baseline.json

## contract-baseline: makes the present gRPC contract the one that later changes are compared with
.PHONY: contract-baseline
contract-baseline: tools
	$(BIN)/buf build proto --exclude-source-info -o proto/baseline.json

# The quick start and the agent stay small: no AWS SDK in the one, no EC2 SDK in the other, no Kubernetes client in either.
.PHONY: light-programs
light-programs:
	@tree=$$(cargo tree --quiet --package smartscale --edges normal --prefix none); \
	if grep -E '^(aws-sdk-|kube-client )' <<<"$$tree"; then \
		echo "'smartscale' must build without the AWS SDK and without a Kubernetes client" >&2; exit 1; fi
	@tree=$$(cargo tree --quiet --package smartscale-agent --edges normal --prefix none); \
	if grep -E '^(aws-sdk-ec2|kube-client) ' <<<"$$tree"; then \
		echo "'smartscale-agent' must build without the EC2 SDK and without a Kubernetes client" >&2; exit 1; fi

## model: checks the models of the lease and of the journal further than `make test` does (minutes)
.PHONY: model
model:
	cargo test --quiet --release --package smartscale-coordinator --no-default-features --lib model:: -- --include-ignored --nocapture

# So long every target looks for inputs that break a reader.
FUZZ_SECONDS := 120

## fuzz: looks for inputs that break a reader of files or of the network, other ones each time; FUZZ_SECONDS=120 a target
.PHONY: fuzz
fuzz: export SMARTSCALE_FUZZ_SECONDS := $(FUZZ_SECONDS)
fuzz:
	cargo test --quiet --profile fuzz --package smartscale-manifests --test fuzz -- --nocapture
	cargo test --quiet --profile fuzz --no-default-features --features smartscale-agent/kube --package smartscale-proto --package smartscale-coordinator --package smartscale-agent --lib fuzz:: -- --nocapture

## agent: the agent as it is shipped: small (docs/figures.md)
.PHONY: agent
agent:
	$(call part,agent,cargo build --quiet --profile agent --package smartscale-agent)
	@echo "$(CARGO_TARGET_DIR)/agent/smartscale-agent"

## release: packages (.deb, .rpm), bills of materials and checksums in dist/, the same bytes for the same commit
.PHONY: release
release:
	rm -rf dist
	packaging/release dist

## reproducible: builds the release twice, in two clones at two places, and compares (an hour)
.PHONY: reproducible
reproducible:
	packaging/reproducible

## bench: benchmarks and the figures of a release build, with the machine's description (docs/figures.md)
.PHONY: bench
bench: export SMARTSCALE_AGENT = $(CARGO_TARGET_DIR)/agent/smartscale-agent
bench: tools agent
	$(call part,peers,tests/rig/install node_exporter)
	$(call part,release programs,cargo build --quiet --release --workspace --bins --bench planner --bench figures)
	$(call part,benchmarks,cargo bench --quiet --workspace --bench planner)
	$(call part,forecasts,cargo bench --quiet --package smartscale-backtest --bench forecast)
	$(call part,figures,cargo bench --quiet --workspace --bench figures)

## bench-planner: how fast plans are made, what they cost against the least possible, and what the program needs
.PHONY: bench-planner
bench-planner: export SMARTSCALE_PROGRAM = $(CARGO_TARGET_DIR)/release/smartscale
bench-planner:
	cargo build --quiet --release --package smartscale
	cargo bench --quiet --package smartscale-planner --bench batches

## contention: eight processes contend for one lease for a minute, on SQLite and on DynamoDB Local (`make test`: ten seconds)
.PHONY: contention
contention: export SMARTSCALE_CONTEND_SECONDS := 60
contention: tools
	cargo test --quiet --workspace --test adapters contention -- --nocapture

## load: k6 plays a day and a spike before a cluster on the rig; figures, and docs/load-*.svg (16 minutes)
.PHONY: load
load: tools programs
	$(CARGO_TARGET_DIR)/debug/load docs $(or $(SMARTSCALE_LOAD),480 200 daily spike)

## rig: brings the real servers up for a person, prints the environment to use them, ends them with Ctrl-C
.PHONY: rig
rig: tools
	cargo build --quiet --package smartscale-agent
	cargo run --quiet --package smartscale-tests --bin rig

## help: this list
.PHONY: help
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
