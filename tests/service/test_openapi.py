"""schemathesis asks the service all that its description allows, and much that it forbids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from service_process import Running


@pytest.mark.slow
def test_the_service_keeps_to_its_description(service: Running, tmp_path: Path) -> None:
    # One check is left out: that whatever fits the schema is accepted. Whether base64 holds a
    # picture, and a text words, is not said by a schema; those are refused with a reason.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options += ["--max-examples", "15", "--seed", "1", "--no-color", "--request-timeout", "20"]
    ran = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert "Tested: 10" in ran.stdout
