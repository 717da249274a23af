# The commands of the project: `make help` lists them. Each makes what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8090
# Where `install-runtime` puts the service as the container image has it.
PREFIX ?= build/image
# Not in the lock file: it is there for some machines only.
ATHERIS := atheris==3.0.0
VERSION := $(shell sed -n 's/^version = //p' setup.cfg)
WHEEL := dist/itb_fhir-$(VERSION)-py3-none-any.whl
BUILD_ENV := build/env
HAPI := fixtures/hapi
PIP := -m pip --disable-pip-version-check --no-input

INSTALLED := $(VENV)/.installed
HAPI_BUILT := $(HAPI)/target/classpath
RIVAL := benchmarks/linuxforhealth
RIVAL_BUILT := $(RIVAL)/target/classpath
HAPI_HL7 := fixtures/hapi-hl7
HAPI_HL7_BUILT := $(HAPI_HL7)/target/classpath

.DELETE_ON_ERROR:
.PHONY: help install lint test fuzz chaos chaos-hapi mllp-kills writers check-image demo hapi hapi-build hapi-archive bench golden docs lock wheel install-runtime clean \
        need-python need-java need-postgresql need-strace need-openssl

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

# --- prerequisites: what is missing, and how to install it, in one line ---------------------------------

need-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'missing: Python 3.11 or later; on Debian: sudo apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'missing: venv for $(PYTHON); on Debian: sudo apt-get install python3-venv' >&2; exit 1; }

# javac and not java: a runtime without the compiler cannot build $(HAPI).
need-java:
	@test "$$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')" -ge 17 2>/dev/null || \
	  { echo 'missing: a JDK, 17 or later; on Debian: sudo apt-get install openjdk-17-jdk-headless' >&2; exit 1; }
	@command -v mvn >/dev/null || \
	  { echo 'missing: Maven; on Debian: sudo apt-get install maven' >&2; exit 1; }

# Debian keeps the server's programs apart from the client's, so that several versions can be installed.
need-postgresql:
	@ls /usr/lib/postgresql/1[5-9]/bin/initdb /usr/lib/postgresql/[2-9][0-9]/bin/initdb 2>/dev/null | grep -q . || \
	  { echo 'missing: PostgreSQL, 15 or later; on Debian: sudo apt-get install postgresql' >&2; exit 1; }

need-strace:
	@command -v strace >/dev/null || \
	  { echo 'missing: strace; on Debian: sudo apt-get install strace' >&2; exit 1; }

need-openssl:
	@command -v openssl >/dev/null || \
	  { echo 'missing: openssl; on Debian: sudo apt-get install openssl' >&2; exit 1; }

# --- the environment ------------------------------------------------------------------------------------

install: need-python $(INSTALLED) ## the virtual environment in .venv, from the lock file, with .venv/bin/itb

$(INSTALLED): requirements.lock setup.cfg pyproject.toml | need-python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --quiet --requirement requirements.lock
	$(BIN)/python $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## write requirements.lock from what .venv holds
	@{ echo '# Exact versions of everything that runs, tests or builds the project. Written by `make lock`.'; \
	  $(BIN)/python $(PIP) freeze --all --exclude pip --exclude itb-fhir; } > requirements.lock

# --- checks ---------------------------------------------------------------------------------------------

# ruff is content with an empty folder: that would be a lint that proves nothing.
lint: install ## format, lint, types, import contracts
	@$(BIN)/ruff check --show-files | grep -q '\.py$$' || { echo 'ruff saw no file' >&2; exit 1; }
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	@mkdir -p build
	@$(BIN)/lint-imports --no-cache > build/imports.txt 2>&1 || { cat build/imports.txt; exit 1; }
	@grep '^Contracts: [1-9]' build/imports.txt || { echo 'import-linter saw no contract' >&2; exit 1; }

test: need-python need-java need-postgresql need-strace need-openssl install hapi-build lint ## everything: lint, the suite on real servers, the image's steps
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	$(MAKE) check-image

fuzz: install ## the property tests with new examples, HL7 v2 by coverage; PYTEST_ARGS='-k …', FUZZ_SECONDS=n
	ITB_FUZZ=1 $(BIN)/python -m pytest tests/mappings tests/service/test_ledger.py tests/service/test_reservoir.py $(PYTEST_ARGS)
	@$(BIN)/python $(PIP) install --quiet --only-binary=:all: $(ATHERIS) || \
	  { echo 'no atheris for this Python: HL7 v2 is fuzzed by hypothesis alone' >&2; exit 0; }; \
	  mkdir -p build/fuzz; \
	  PYTHONPATH=.:tests $(BIN)/python -m fuzz_hl7 -max_total_time=$(or $(FUZZ_SECONDS),120) > build/fuzz/log 2>&1; \
	  status=$$?; tail -n 30 build/fuzz/log; exit $$status

chaos: need-python need-postgresql install ## faults and kills: ten seeds on SQLite and on PostgreSQL; SEEDS=n for another number
	@PYTHONPATH=.:tests $(BIN)/python -m chaos_seeds --seeds $(or $(SEEDS),10)

chaos-hapi: need-python need-java install hapi-build ## the same on a real HAPI that is killed too; SEEDS=n
	@PYTHONPATH=.:tests $(BIN)/python -m chaos_seeds --hapi --seeds $(or $(SEEDS),1)

mllp-kills: install ## 100 000 messages over MLLP, connections cut, the service killed 50 times; MESSAGES=n KILLS=n
	@PYTHONPATH=.:tests $(BIN)/python -m mllp_kills --messages $(or $(MESSAGES),100000) --kills $(or $(KILLS),50)

writers: need-python need-java install hapi-build ## 64 writers of the same 500 events at a real HAPI: none doubled, none lost
	ITB_WRITERS=64 ITB_WRITTEN=500 $(BIN)/python -m pytest tests/sync/test_writers_on_hapi.py $(PYTEST_ARGS)

check-image: install-runtime install ## what the image would run, run here: its command, its health check
	ITB_IMAGE_PREFIX=$(abspath $(PREFIX)) $(BIN)/python -m pytest tests/image/check_image.py

$(RIVAL_BUILT): $(RIVAL)/pom.xml $(shell find $(RIVAL)/src -type f) | need-java
	cd $(RIVAL) && mvn --batch-mode --quiet -Dstyle.color=never compile jar:jar dependency:build-classpath
	@touch $@

bench: install hapi-build $(RIVAL_BUILT) ## every benchmark, beside its rival in the same run
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

golden: install ## write golden files that are not there yet; FORCE=1 rewrites all, for you to read the diff
	PYTHONPATH=.:tests $(BIN)/python -m golden $(if $(FORCE),--force)

docs: install ## the tables of README.md and docs/ that are made from code
	PYTHONPATH=.:tests $(BIN)/python -m doc_tables

# --- running --------------------------------------------------------------------------------------------

demo: need-python need-java install hapi-build ## a pump's history into a real EHR and back; ONCE=1 stops at the end
	$(BIN)/python -m service.demo $(if $(ONCE),--once)

hapi: need-python need-java install hapi-build ## a real HAPI FHIR R4 server by hand, on PORT=8090
	$(BIN)/python -m service.hapi_server --port $(PORT)

hapi-build: need-java $(HAPI_BUILT) $(HAPI_HL7_BUILT)

$(HAPI_HL7_BUILT): $(HAPI_HL7)/pom.xml $(shell find $(HAPI_HL7)/src -type f) | need-java
	cd $(HAPI_HL7) && mvn --batch-mode --quiet -Dstyle.color=never compile jar:jar dependency:build-classpath
	@touch $@

$(HAPI_BUILT): $(HAPI)/pom.xml $(shell find $(HAPI)/src -type f) | need-java
	@echo 'building HAPI: the first time Maven downloads about 300 MB' >&2
	cd $(HAPI) && mvn --batch-mode --quiet -Dstyle.color=never compile jar:jar dependency:build-classpath
	@rm -f $(HAPI)/target/hapi.jsa
	@touch $@

# Worth it from about the third start on: a start takes half the time, writing the archive takes a minute.
hapi-archive: hapi-build ## an archive of HAPI's loaded classes (200 MB): later starts take half the time
	java -Xmx2g -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ArchiveClassesAtExit=$(HAPI)/target/hapi.jsa \
	  -Dhapi.exitWhenReady=true -classpath $(abspath $(HAPI))/target/hapi.jar:$$(cat $(HAPI_BUILT)) \
	  itb.fixtures.hapi.HapiServer

# --- the image: these two are all that the Dockerfile runs ----------------------------------------------

wheel: $(WHEEL) ## the distribution, in dist/

$(BUILD_ENV)/.made: requirements.lock | need-python
	$(PYTHON) -m venv $(BUILD_ENV)
	$(BUILD_ENV)/bin/python $(PIP) install --quiet --constraint requirements.lock setuptools
	@touch $@

# build/lib would carry files that the sources no longer have into the wheel.
$(WHEEL): $(BUILD_ENV)/.made setup.cfg pyproject.toml $(wildcard README.md) LICENSE $(shell find mappings service -type f -not -name '*.pyc')
	rm -rf build/lib build/bdist.* dist
	$(BUILD_ENV)/bin/python $(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

install-runtime: $(PREFIX)/.installed ## the wheel and its locked dependencies, nothing else, in PREFIX

$(PREFIX)/.installed: $(WHEEL) requirements.lock
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python $(PIP) install --quiet --no-cache-dir --constraint requirements.lock --force-reinstall \
	  '$(WHEEL)[pg]'
	@touch $@

clean: ## everything that was made, but the virtual environment
	rm -rf build dist *.egg-info $(HAPI)/target $(HAPI_HL7)/target $(RIVAL)/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
