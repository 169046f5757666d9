# The two commands that a newcomer needs: `make demo` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
JAVA := plugin/xmodal_opensearch/server_plugin/java
export OMP_WAIT_POLICY := PASSIVE

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
	$(BIN)/python tests/wheel_job.py dist

# The server's plugin by Maven, for those who prefer it; make test builds it without.
maven:
	cd $(JAVA) && mvn --quiet --batch-mode package
	test -s $(JAVA)/target/hamming-3.6.0.zip

clean:
	rm -rf .venv build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# uv installs this stack in a fraction of pip's time; it comes from the package index like the rest.
.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	touch $@
