"""Responses to generated valid and invalid requests fit the OpenAPI description (schemathesis)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.service_process import Running


@pytest.mark.slow
def test_responses_fit_the_openapi_description(service: Running, tmp_path: Path) -> None:
    # positive_data_acceptance is excluded: a schema cannot express that base64 is a picture or that
    # a text has words, and the service rejects both with status 422.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options += ["--max-examples", "15", "--seed", "1", "--no-color", "--request-timeout", "20"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "Tested: 10" in done.stdout
