# worker: build, test, install. `make` alone lists what there is.

PREFIX ?= /usr/local
DESTDIR ?=
# A folder of wheels to install from, instead of the package index.
WHEELHOUSE ?=
# The Python to use (default: found by scripts/find-python).
PYTHON ?=
# The Python versions that `make wheelhouse` fetches wheels for.
WHEEL_PYTHONS ?= 3.11
# The Python versions that the Debian package works with.
DEB_PYTHONS ?= 3.11 3.12 3.13
PURGE ?=
FUZZ_RUNS ?= 10000000
FUZZ_REQUESTS ?= 1000000
export PREFIX DESTDIR WHEELHOUSE PYTHON PURGE

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
INIT_SOURCES := $(wildcard workerd/init/*.c workerd/init/*.h)
SCRIPTS := $(wildcard scripts/*) .ci/run workerctl/completing/scripts/workerctl.bash \
    $(addprefix packaging/deb/,postinst prerm postrm rtupdate)
# The guest has it beside a copy of vmlib's frames.py.
VM_AGENT := tests/system/guest/rootfs/usr/local/lib/worker-vm/agent.py
PYTHON_SOURCES := $(wildcard workerd/*.py workerctl/*.py)

# Cases and options of `make bench`
BENCH ?=

# Options of `make chaos`: --kills N --jobs N --minutes N --seed N
CHAOS ?=

.PHONY: help demo-cluster venv init lint chaos faults leaks test test-unit test-host test-system bench bench-check fuzz demo tour pictures figures docs man wheel wheelhouse deb deb-lint install uninstall clean

help: ## This list
	@echo 'make TARGET [PREFIX=$(PREFIX)] [DESTDIR=] [WHEELHOUSE=] [PYTHON=]'
	@sed -n 's/^\([a-z -]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

demo: ## The five-minute tour, for real: on this machine or in a virtual one
	scripts/demo-anywhere

demo-cluster: venv init ## Two machines under one Dask scheduler, in network namespaces made for it (root)
	$(BIN)/python -m tests.host.clusterdemo

test: lint init ## All tests, and the linters
	scripts/test-all

test-unit: venv init ## Tests that run anywhere
	$(PYTEST) tests/unit

test-host: venv init ## Tests that need root and cgroup2
	$(PYTEST) tests/host

chaos: venv init ## The long test of durability: 3,000 kills, then 20 at every step
	$(BIN)/python -m tests.host.chaos $(CHAOS)
	$(BIN)/python -m tests.host.stepwise --times 20

faults: venv init ## Every system call of a job's life fails once, in the daemon and in worker-init
	$(BIN)/python -m tests.host.faults

leaks: venv init ## 10,000 jobs; then nothing of them may be held
	$(BIN)/python -m tests.host.leaks

test-system: venv init ## Tests in a virtual machine
	$(PYTEST) tests/system

fuzz: venv init ## The fuzzers, long: FUZZ_RUNS of the parser, FUZZ_REQUESTS through a socket
	$(BIN)/python -m tests.fuzz.parser $(FUZZ_RUNS)
	$(BIN)/python -m tests.fuzz.rpc $(FUZZ_REQUESTS)

lint: venv init ## ruff, mypy --strict, the C compilers' warnings, shellcheck
	$(BIN)/ruff check .
	$(BIN)/mypy --strict workerd workerctl tools hatch_build.py tests tests/system/vm
	MYPYPATH=tests/system/vmlib $(BIN)/mypy --strict $(VM_AGENT)
	$(BIN)/python workerd/init/build.py --analyze
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $(SCRIPTS); else echo 'shellcheck: not installed, skipped'; fi

bench: venv init ## Figures, each beside its peers; BENCH="launch rpc" for some cases, BENCH=--commit for the docs
	scripts/bootstrap bench
	$(BIN)/pip install -qq --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python tests/bench $(BENCH)

bench-check: venv init ## Compare the ratios of a short run with those in docs/performance.json
	scripts/bootstrap bench
	$(BIN)/python tests/bench --check

tour: venv init ## Type the commands of docs/tour.md in the virtual machine, write what they print
	$(BIN)/python -m tools.tour

pictures: venv init ## docs/pictures/*.svg, from workerctl at work in the virtual machine
	$(BIN)/python -m tools.pictures

figures: docs/figures/architecture.svg ## docs/figures/*.svg, from their text, with Graphviz

docs/figures/%.svg: docs/figures/%.dot
	scripts/bootstrap figures
	dot -Tsvg $< -o $@

docs man: venv ## The reference of the RPC in docs/ and the manual pages in man/, from the sources
	$(BIN)/python -m tools.reference

venv: $(VENV)/.made ## .venv with the editable install and the developers' tools

$(VENV)/.made: pyproject.toml hatch_build.py
	scripts/bootstrap
	"$$(scripts/find-python)" -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --editable '.[dev]'
	touch $@

init: venv ## worker-init, and worker-init-asan for tests
	$(BIN)/python workerd/init/build.py
	$(BIN)/python workerd/init/build.py --sanitize

wheel: venv ## The wheel, in dist/
	rm -f dist/worker_jobs-*.whl
	WORKER_CLIENT_ONLY=0 $(BIN)/pip wheel -qq --no-deps --no-build-isolation --wheel-dir dist .

# cgroupspy comes as source alone: `pip wheel` makes its wheel, then every version's pip finds that.
wheelhouse: wheel ## The wheel and all it depends on, in dist/wheelhouse/
	rm -rf dist/wheelhouse
	$(BIN)/pip wheel -qq --wheel-dir dist/wheelhouse "$$(echo dist/worker_jobs-*.whl)[daemon]"
	for version in $(WHEEL_PYTHONS); do \
	    $(BIN)/pip download -qq --python-version $$version --only-binary :all: \
	        --find-links dist/wheelhouse --dest dist/wheelhouse "$$(echo dist/worker_jobs-*.whl)[daemon]" || exit 1; \
	done

deb: venv ## A Debian package in dist/, for Debian 12 and 13; WHEELHOUSE=DIR where there is no package index
	[ -n "$(WHEELHOUSE)" ] || $(MAKE) --no-print-directory wheelhouse WHEEL_PYTHONS="$(DEB_PYTHONS)"
	PYTHON=$(BIN)/python PYTHONS="$(DEB_PYTHONS)" WHEELHOUSE="$(or $(WHEELHOUSE),dist/wheelhouse)" scripts/deb

deb-lint: deb ## lintian on it
	scripts/bootstrap deb
	lintian --allow-root --fail-on error,warning dist/worker-jobs_*.deb

install: ## Install under PREFIX; over a running worker it is an upgrade, and jobs go on
	scripts/install

uninstall: ## Undo install; jobs end; PURGE=1 removes state and configuration too
	scripts/uninstall

clean: ## Remove what was built here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f workerd/init/worker-init workerd/init/worker-init-*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
