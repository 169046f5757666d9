"""Folders of trained encoders: changed files raise ModelError; files are UTF-8 in any locale."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xmodal.encoders.load import load_encoder
from xmodal.errors import ModelError


def damages(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield descriptions and configs in which one key is missing or has another value."""
    for key in ("format", "fingerprint", "towers", "backbones", "confidence"):
        yield f"without {key}", {k: v for k, v in config.items() if k != key}
        for value in (None, [], "x", {}, -1):
            yield f"{key} is {value!r}", config | {key: value}
    for key in ("towers", "backbones", "confidence"):
        for inner in config[key]:
            yield f"{key} without {inner}", config | {key: _without(config[key], inner)}
            for value in (None, [], "x", -1):
                yield f"{inner} is {value!r}", config | {key: config[key] | {inner: value}}


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def test_changed_config_raises_or_gives_the_same_codes(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    config = _without(
        json.loads((model / "config.json").read_text()), "sha256"
    )  # as in earlier versions
    raised = []
    for what, damaged in damages(config):
        (tmp_path / "m/config.json").write_text(json.dumps(damaged))
        try:
            loaded = load_encoder(tmp_path / "m")
        except ModelError as error:
            assert "\n" not in str(error), what
            raised.append(what)
        else:  # a value that does not decide a code, such as the path of a backbone
            assert loaded.fingerprint == config["fingerprint"], what
            found = loaded.confidence.hits_confidence("vectors", [0.5], 9, distances=[1])
            assert found[0] is None or 0 <= found[0] <= 1, what
    expected = {"without towers", "without fingerprint", "bits is 'x'", "min_confidence is None"}
    assert expected < set(raised)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\0", '{"train": 5}'])
@pytest.mark.parametrize("name", ["config.json", "split.json"])
def test_json_file_with_other_content_raises(
    model: Path, tmp_path: Path, name: str, content: str
) -> None:
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        load_encoder(tmp_path / "m")


def test_files_are_written_in_utf8_under_any_locale(model: Path, tmp_path: Path) -> None:
    program = f"""
import locale
from xmodal.encoders.load import load_encoder
encoder = load_encoder({str(model)!r})
encoder.split = {{"train": ["\\u00e9", "\\u6f22"]}}
encoder.save({str(tmp_path)!r})
print(locale.getencoding())
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | plain, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "utf" not in ran.stdout.lower()
    assert load_encoder(tmp_path).split == {"train": ["é", "漢"]}
