# The two commands of the README are `make serve` and `make test`. Everything is built with one cargo
# profile, --release: a second profile would build the gRPC C core a second time.

# Shown while the C core is being compiled; see the README, "The first build".
CARGO = build/cargo-with-progress.sh cargo
FLAGS = --release --locked

DB ?= billstream.db
LISTEN ?= 127.0.0.1:50051

.PHONY: serve test lint build bench bench-short deps clean

## Builds what is needed and serves DB on LISTEN
serve: build
	@exec $(or $(CARGO_TARGET_DIR),target)/release/billstream serve --db '$(DB)' --listen '$(LISTEN)'

build: deps
	@$(CARGO) build $(FLAGS)

## Runs every test
test: deps
	@$(CARGO) test $(FLAGS) --no-fail-fast

## Formatting, clippy, rustdoc; and the proto file and the scripts where their tools are there
lint: deps
	cargo fmt --check
	$(CARGO) clippy $(FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(FLAGS) --no-deps
	cd benches/compare && cargo fmt --check && cargo clippy $(FLAGS) --all-targets -- -D warnings
	@if command -v buf >/dev/null; then buf lint proto; else echo 'buf is not here: proto is not linted'; fi
	@if command -v shellcheck >/dev/null; then shellcheck build/*.sh .ci/run; else echo 'shellcheck is not here'; fi

## Compares billstream with tonic: up to 20 minutes; `make bench-short` takes up to 3
bench bench-short: build
	@$(CARGO) build $(FLAGS) --example ceiling --example local
	cd benches/compare && cargo build $(FLAGS)
	cd benches/compare && cargo run $(FLAGS) --bin bench -- $(if $(filter bench-short,$@),--short)

deps:
	@build/install-deps.sh

clean:
	cargo clean
