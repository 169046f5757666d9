"""Commands, a process without torch and another library use models of a hub."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.absent import command, environment
from support.hub_server import Hub

from xmodal.encoders.onnx_encoder import PortableEncoder

pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
# The client uploads files by a keyword that its HTTP library renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
Run = Callable[..., Any]
TEXTS = ["a red circle on the left", "two dogs"]
NAME = "owner/toy"


def test_commands_push_and_take_names(
    hub: Hub, xmodal_cli: Run, portable_path: Path, portable: PortableEncoder, tmp_path: Path
) -> None:
    given = ("export", "--model", portable_path, "--hub")
    pushed = json.loads(xmodal_cli(*given, f"{NAME}@next", "--json").out)
    assert pushed["model"] == f"hf://{NAME}@next"
    assert "text.onnx" not in hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]]
    code = portable.encode_texts(TEXTS[:1]).packed.tobytes().hex()
    encoded = xmodal_cli("encode", "--text", TEXTS[0], "--model", f"hf://{NAME}@next")
    assert encoded.status == 0 and code in encoded.out
    for name, words in (("hf://owner/none", "no model owner/none"), ("hf://x", "hf://OWNER/NAME")):
        failed = xmodal_cli("encode", "--text", "x", "--model", name)
        errors = [line for line in failed.err.splitlines() if not line.startswith("downloading ")]
        assert failed.status == 2 and len(errors) == 1 and words in errors[0]
    out = tmp_path / "my.st"
    given = ("export", "--sentence-transformers", out, "--model", f"hf://{NAME}@next")
    assert xmodal_cli(*given).status == 0
    # The folder is a model of both libraries on the hub too.
    assert xmodal_cli("export", "--model", out, "--hub", "owner/both").status == 0
    assert "modules.json" in next(reversed(hub.repositories["owner/both"].commits.values()))


def test_model_of_the_hub_is_a_model_of_sentence_transformers(
    hub: Hub, portable: PortableEncoder, portable_path: Path, tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers", reason="pip install -e '.[dev]'")
    from xmodal.integrations.sentence_folder import write_sentence_folder

    write_sentence_folder(portable_path, tmp_path / "st").push_to_hub(NAME)
    model = st.SentenceTransformer(NAME, trust_remote_code=True, device="cpu")
    found = model.encode(TEXTS, precision="ubinary")
    np.testing.assert_array_equal(found, portable.encode_texts(TEXTS).packed)


def test_environment_names_the_hub(
    hub: Hub, files: dict[str, bytes], portable: PortableEncoder, tmp_path: Path
) -> None:
    """A process without torch, by $HF_ENDPOINT; without the package, one line."""
    hub.add(NAME, files)
    given = ("encode", "--text", TEXTS[0], "--model", f"hf://{NAME}")
    env = environment() | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    done = subprocess.run(command(("torch",), *given), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert portable.encode_texts(TEXTS[:1]).packed.tobytes().hex() in done.stdout
    absent = command(("huggingface_hub",), *given)
    done = subprocess.run(absent, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "[hub]'" in done.stderr
