# The two commands of the README are `make serve` and `make test`; docs/install.md has `make install` and `make deb`. Everything is built with one cargo
# profile, --release: a second profile would build the gRPC C core a second time.

# Shown while the C core is being compiled; see the README, "The first build".
CARGO = build/cargo-with-progress.sh cargo
FLAGS = --release --locked

DB ?= billstream.db
LISTEN ?= 127.0.0.1:50051

RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
PROGRAM = $(RELEASE)/billstream
# Where `make install` installs; a package is made of what is installed below DESTDIR.
DESTDIR ?=
PREFIX ?= /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
STAGE = $(RELEASE)/stage

.PHONY: serve test lint build install deb bench bench-short deps clean

## Builds what is needed and serves DB on LISTEN
serve: build
	@exec $(PROGRAM) serve --db '$(DB)' --listen '$(LISTEN)'

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

## Installs what `make build` built: as root it compiles nothing. A configuration that is there is kept
install:
	@test -x $(PROGRAM) || { echo '$(PROGRAM) is not there: run `make build` first' >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/man/man1 $(DESTDIR)/etc/billstream
	install $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/billstream
	$(PROGRAM) man $(SHARE)/man/man1
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(PROGRAM) completions bash > $(SHARE)/bash-completion/completions/billstream
	$(PROGRAM) completions zsh > $(SHARE)/zsh/site-functions/_billstream
	$(PROGRAM) completions fish > $(SHARE)/fish/vendor_completions.d/billstream.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	sed 's|/usr/bin|$(PREFIX)/bin|' packaging/billstream.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/billstream.service
	install -m 644 packaging/billstream.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/billstream.conf
	@# Without the variables of whoever installs, which would be settings.
	test -e $(DESTDIR)/etc/billstream/billstream.toml || env -i $(PROGRAM) config \
	  --db /var/lib/billstream/billstream.db > $(DESTDIR)/etc/billstream/billstream.toml

## A Debian package, in target/debian; needs `cargo install cargo-deb`
deb: build
	rm -rf $(STAGE)
	$(MAKE) install DESTDIR=$(STAGE) PREFIX=/usr
	cargo deb --no-build

## Compares billstream with tonic: up to 20 minutes; `make bench-short` takes up to 3. With OLD=BINARY it compares with
## that older billstream instead
bench bench-short: build
	@$(CARGO) build $(FLAGS) --example ceiling --example local
	cd benches/compare && cargo build $(FLAGS)
	cd benches/compare && cargo run $(FLAGS) --bin bench -- $(if $(filter bench-short,$@),--short) $(if $(OLD),--old '$(abspath $(OLD))')

deps:
	@build/install-deps.sh

clean:
	cargo clean
