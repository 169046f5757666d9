"""Execution providers of onnxruntime: comparison with the CPU, and what is refused."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.providers import (
    NAMES,
    PROVIDERS,
    Provider,
    bit_differences,
    check_codes,
    check_started,
    session_providers,
)
from xmodal.errors import ConfigError, ModelError

Run = Callable[..., Any]
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[onnx]'")
MISSING: list[Provider] = [
    one for one in PROVIDERS if NAMES[one] not in onnxruntime.get_available_providers()
]


def test_equal_providers_have_equal_codes(
    portable_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (PortableEncoder.load(portable_path) for _ in range(2))
    assert {m: one.different for m, one in bit_differences(first, second).items()} == {
        "image": 0,
        "text": 0,
    }
    with caplog.at_level(logging.INFO, logger="xmodal"):
        check_codes("cuda", first, second)
    assert "0 of 512 bits of images and 0 of 512 bits of texts differ" in caplog.text


def test_other_codes_are_refused(portable_path: Path) -> None:
    class Inverted(PortableEncoder):
        """Codes of another encoder, as a provider would give them that computes wrongly."""

        def encode(self, *arguments: Any, **options: Any) -> Any:
            encoded = super().encode(*arguments, **options)
            return encoded._replace(codes=type(encoded.codes)(~encoded.codes.packed, self.bits))

    with pytest.raises(ModelError, match=r"512 of 512 bits of images.*expected at most 1%"):
        check_codes("cuda", Inverted.load(portable_path), PortableEncoder.load(portable_path))


@pytest.mark.parametrize("provider", MISSING)
def test_a_missing_provider_is_one_line(portable_path: Path, provider: Provider) -> None:
    with pytest.raises(ConfigError, match=f"provider {provider} is not in onnxruntime .* has cpu"):
        load_encoder(portable_path, provider=provider)


def test_providers_of_a_session() -> None:
    assert session_providers(onnxruntime, "cpu") == ["CPUExecutionProvider"]

    class Session:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    check_started(Session(), "cpu")
    with pytest.raises(ConfigError, match="installed and cannot be started"):
        check_started(Session(), "cuda")


def test_provider_implies_onnx(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --provider out"):
        load_encoder(model, engine="torch", provider="cuda")
    alone = tmp_path / "alone.model"
    shutil.copytree(model, alone, ignore=shutil.ignore_patterns("portable"))
    with pytest.raises(ConfigError, match=r"has no portable encoder.*leave --provider cuda out"):
        load_encoder(alone, provider="cuda")


def test_search_with_a_provider(xmodal_cli: Run, portable_path: Path, index_path: Path) -> None:
    options = ("--model", portable_path, "--index", index_path)
    usual = xmodal_cli("search", "red", *options)
    assert xmodal_cli("search", "red", *options, "--provider", "cpu").out == usual.out
    if "cuda" in MISSING:
        result = xmodal_cli("search", "red", *options, "--provider", "cuda")
        assert result.status == 2 and "which has cpu" in result.err
