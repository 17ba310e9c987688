# `make run` and `make test` work on a fresh Debian 12 or Ubuntu with rustup: they install what is missing, then call cargo.

# The C++ of RocksDB takes minutes to compile: caches live outside the checkout, so that a fresh clone finds them.
CACHE           ?= $(HOME)/.cache/cairn
CARGO_TARGET_DIR ?= $(CACHE)/target
CCACHE_DIR      ?= $(CACHE)/ccache
export CACHE CARGO_TARGET_DIR CCACHE_DIR
export CC  = ccache gcc
export CXX = ccache g++

.PHONY: run cluster test lint doc deps test-deps lint-deps

run: deps
	cargo build --release --locked -p cairn-server -p cairnctl
	$(CARGO_TARGET_DIR)/release/cairn --data-dir default.cairn

# Three members on 127.0.0.1:2379, :22379 and :32379 with their data in cluster.cairn.
cluster: deps
	cargo build --release --locked -p cairn-server -p cairnctl
	PATH="$(CARGO_TARGET_DIR)/release:$$PATH" scripts/cluster Procfile

test: deps test-deps
	cargo nextest run --locked --workspace
	cargo test --locked --workspace --doc

deps:
	@scripts/install-deps build

lint-deps:
	@scripts/install-deps lint

test-deps:
	@scripts/install-deps test

lint: deps lint-deps
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --locked check bans licenses sources

doc: deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
