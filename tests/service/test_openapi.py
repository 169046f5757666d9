"""Responses to generated valid and invalid requests fit the OpenAPI description (schemathesis).

``XMODAL_API_EXAMPLES=3000`` runs about 20,000 cases, in ten minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.service_process import Running

EXAMPLES = os.environ.get("XMODAL_API_EXAMPLES", "12")
"""Generated cases of each operation, beside those of its examples and limits."""


@pytest.mark.slow
def test_responses_fit_the_openapi_description(service: Running, tmp_path: Path) -> None:
    # positive_data_acceptance is excluded: a schema cannot express that base64 is a picture or that
    # a text has words, and the service rejects both with status 422.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options += ["--max-examples", EXAMPLES, "--seed", "1", "--no-color", "--request-timeout", "20"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "Tested: 12" in done.stdout
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases is not None and cases[1] == cases[2]
    print(f"{cases[1]} cases passed")
