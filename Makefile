# The two commands that a newcomer needs: `make demo` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
JAVA := plugin/xmodal_opensearch/server_plugin/java
export OMP_WAIT_POLICY := PASSIVE
# Without an NVIDIA driver, what torch needs for a GPU alone is left out; if this torch cannot be
# imported without, it is installed after all.
WITHOUT_GPU := $(if $(wildcard /proc/driver/nvidia/version /dev/dxg),,UV_EXCLUDE=.ci/gpu-only.txt)
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
  && $(WITHOUT_GPU) $(UV_INSTALL) && { $(BIN)/python -c 'import torch' 2>/dev/null || $(UV_INSTALL); }

.PHONY: demo demo-opensearch demo-hamming maven test test-slow check format wheel clean

demo: .venv/ready
	$(BIN)/xmodal demo --out demo

# The demo's world, made first if it is not there, loaded into a real node and asked the same things.
demo-opensearch: .venv/ready
	test -e demo/report.json || $(BIN)/xmodal demo --out demo
	$(BIN)/xmodal-opensearch demo --out demo

# The same with our hamming query inside the node, compiled on the way.
demo-hamming: .venv/ready
	test -e demo/report.json || $(BIN)/xmodal demo --out demo
	$(BIN)/xmodal-opensearch demo --out demo --with-plugin

# Two at a time: many tests wait for servers. A file stays in one process, which starts its own nodes.
test: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# Kills, lost nodes, whole tutorials: what takes long. CI runs them all.
test-slow: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Builds the wheel, installs it into an empty environment and looks for everything in there.
wheel: .venv/ready
	rm -rf build dist
	$(BIN)/python -m build --wheel --installer uv
	$(BIN)/python tests/project/wheel_job.py dist

# The server's plugin by Maven, for those who prefer it; make test builds it without.
maven:
	cd $(JAVA) && mvn --quiet --batch-mode package
	test -s $(JAVA)/target/hamming-3.6.0.zip

clean:
	rm -rf .venv build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment is made anew if it has no pip, or if .venv/unfinished shows that an installation was
# killed. uv installs in a fraction of pip's time.
.venv/ready: pyproject.toml .ci/gpu-only.txt
	@test ! -e .venv/unfinished && $(BIN)/python -c 'import pip' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: $(PYTHON) cannot make an environment, expected Python 3.11 or later with venv:' \
	    'run apt-get install python3-venv (or name another, make PYTHON=...), then make again' >&2; exit 1; }; \
	  rm -rf .venv && mkdir .venv && touch .venv/unfinished && $(PYTHON) -m venv .venv; }
	@touch .venv/unfinished
	@echo 'installing what pyproject.toml names into .venv' >&2
	@$(INSTALL) || { test ! -e $@ || rm .venv/unfinished; exit 1; }
	@rm .venv/unfinished && touch $@
