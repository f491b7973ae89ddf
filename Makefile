# The two commands that do everything: make demo, make test. The others are parts of them.
PYTHON ?= python3
PY := .venv/bin/python
# How many tests run at once. A virtual machine or a node waits more than it works.
WORKERS ?= 2

# Some machines tell Python to compile every file at every start, which a run of pyinfra pays for, or to print without a
# buffer, which a user's Python has.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.PHONY: help demo demo-down test test-unit test-kernels test-faults lint reference docs bench packages clean
help:
	@echo "make demo        build a real node under build/, deploy to it twice, prove user namespaces (KEEP=1 keeps it)"
	@echo "make demo-down   end the node that KEEP=1 left running"
	@echo "make test        lint, types, unit tests, tests on real nodes and on real kernels"
	@echo "make lint        ruff and mypy"
	@echo "make test-unit   the tests that need neither root nor a node"
	@echo "make test-kernels  the tests on virtual machines with other kernels"
	@echo "make test-faults  break a real node some two hundred times while it is changed (SEED=… NODES=… CASES=…)"
	@echo "make reference   write docs/reference/ from the code"
	@echo "make docs        build the documentation into build/site"
	@echo "make bench       speed: bakes of an image, and a fleet on this machine beside Ansible"
	@echo "make clean       remove build/ and .venv"

# Wheels alone: what a source archive is built with would come without a digest.
.venv: .venv/run.stamp
.venv/run.stamp: requirements/run.txt requirements/fleet.txt
	@sh lab/install-packages.sh venv "$(PYTHON)"
	@test -x $(PY) || "$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r requirements/run.txt -r requirements/fleet.txt
	@touch $@
.venv/test.stamp: requirements/test.txt requirements/browser.txt requirements/docs.txt requirements/dask.txt .venv/run.stamp
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: $(addprefix -r ,$(filter %.txt,$^))
	@touch $@

packages:
	@sh lab/install-packages.sh nodes

demo: packages .venv/run.stamp
	@$(PY) -m lab.demo $(if $(KEEP),--keep)
demo-down:
	@$(PY) -m lab.demo --down

lint: .venv/test.stamp
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy

reference: .venv/run.stamp
	@$(PY) -m docs_reference

docs: .venv/test.stamp
	@$(PY) -m mkdocs build --strict --quiet
	@echo "The documentation is in build/site: open build/site/index.html"

test-unit: .venv/test.stamp
	@$(PY) -m pytest tests/unit

test-kernels: .venv/test.stamp
	@sh lab/install-packages.sh vms
	@$(PY) -m pytest tests/vm

test-faults: .venv/test.stamp
	@sh lab/install-packages.sh tests
	@$(PY) -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(NODES),--nodes $(NODES)) $(CASES)

test: lint
	@sh lab/install-packages.sh tests
	@$(PY) -m pytest -n $(WORKERS) --dist loadscope

bench: packages .venv/test.stamp
	@$(PY) -m bench

clean:
	rm -rf build .venv
