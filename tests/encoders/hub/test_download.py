"""Encoders are downloaded from a hub: names, revisions, the cache, limits, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hub_server import Hub

from xmodal.checksums import with_digest
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.hub import HubName, download, is_hub_name
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, ModelError

pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
TEXTS = ["a red circle on the left", "two dogs"]
NAME = "owner/toy"


def changed(files: dict[str, bytes], /, **keys: Any) -> dict[str, bytes]:
    """Return the files with other keys in config.json, and its digest."""
    config = json.loads(files["config.json"]) | keys
    return files | {"config.json": json.dumps(with_digest(config)).encode()}


# ---- names -----------------------------------------------------------------------------------


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parsed = HubName.parse("hf://owner/a.name-1@refs/pr/2")
    assert (parsed.repo, parsed.revision) == ("owner/a.name-1", "refs/pr/2")
    assert HubName.parse(str(parsed)) == parsed
    assert HubName.parse("owner/x", "v1") == HubName.parse("owner/x@v1", "v1")
    assert is_hub_name("owner/x") and is_hub_name("hf://owner/x") and is_hub_name("owner/x@v1")
    for text in ("x", "./x", "/a/b", "a/b/c", "~/x", "../x", ""):
        assert not is_hub_name(text)
        with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
            HubName.parse(text)
    for text in ("hf://a/..", "hf://a/b@../c", "hf://a/b@-x y", "hf://a b/c"):
        with pytest.raises(ConfigError):
            HubName.parse(text)
    with pytest.raises(ConfigError, match="another revision"):
        HubName.parse("owner/x@v1", "v2")
    (tmp_path / "owner/x").mkdir(parents=True)
    assert not is_hub_name("owner/x") and not is_hub_name(Path("hf://owner/y"))
    with pytest.raises(ConfigError, match="has no revision"):
        Encoder.from_pretrained("owner/x", revision="v1")


# ---- download --------------------------------------------------------------------------------


def test_encoder_is_loaded_by_its_name(
    hub: Hub, files: dict[str, bytes], portable: PortableEncoder, portable_path: Path
) -> None:
    others = {"evil.py": b"1/0", "weights.bin": b"x", "sub/config.json": b"{}"}
    hub.add(NAME, files | others)
    found = Encoder.from_pretrained(NAME)
    assert isinstance(found, PortableEncoder)
    assert found.fingerprint == portable.fingerprint
    expected = portable.encode_texts(TEXTS).packed
    np.testing.assert_array_equal(found.encode_texts(TEXTS).packed, expected)
    names = {path.name for path in found.folder.iterdir()}
    assert names == {path.name for path in portable_path.iterdir()} - {"README.md"}
    hub.requests.clear()
    Encoder.from_pretrained(f"hf://{NAME}")
    assert hub.requests == [f"HEAD /{NAME}/resolve/main/config.json"]
    of_folder = Encoder.from_pretrained(portable_path)
    np.testing.assert_array_equal(of_folder.encode_texts(TEXTS).packed, expected)


def test_revisions_are_pinned(hub: Hub, files: dict[str, bytes], portable: PortableEncoder) -> None:
    repository = hub.add(NAME, files)
    first = repository.refs["v1"] = repository.refs["main"]
    repository.commit(changed(files, fingerprint="0123456789abcdef"))
    assert Encoder.from_pretrained(NAME).fingerprint == "0123456789abcdef"
    for revision in ("v1", first):
        assert Encoder.from_pretrained(NAME, revision=revision).fingerprint == portable.fingerprint
    hub.requests.clear()
    download(HubName(NAME, first))
    assert not hub.requests, "a commit in the cache needs no connection"


def test_without_a_connection_the_cache_is_used(
    hub: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add(NAME, files)
    folder = download(HubName(NAME))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download(HubName(NAME)) == folder
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set") as caught:
        download(HubName("owner/other"))
    assert "\n" not in str(caught.value)


def test_unreachable_hub_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        download(HubName(NAME))
    assert "\n" not in str(caught.value)


def test_missing_models_revisions_and_files(hub: Hub, files: dict[str, bytes]) -> None:
    hub.add(NAME, files)
    hub.add("owner/private", files).private = True
    hub.add("owner/other", {"model.safetensors": b"x"})
    hub.add("owner/backbone", {"config.json": b'{"model_type": "bert"}'})
    hub.add("owner/incomplete", {k: v for k, v in files.items() if k != "text.onnx"})
    for name, words in {
        "owner/none": "has no model owner/none, or it is private",
        "owner/private": "private",
        f"{NAME}@v9": "no revision 'v9'",
        "owner/other": "lacks config.json",
        "owner/backbone": "not a folder of xmodal export",
        "owner/incomplete": "lacks text.onnx",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            download(HubName.parse(name))
        assert "\n" not in str(caught.value)


def test_only_files_of_a_portable_encoder_are_downloaded(hub: Hub, files: dict[str, bytes]) -> None:
    recorded = json.loads(files["config.json"])["files"]
    for extra in ("../../evil", "evil.py", "weights.safetensors"):
        hub.repositories.clear()
        records = recorded | {extra: {"bytes": 1, "sha256": "0" * 64}}
        hub.add(NAME, changed(files, files=records) | {extra: b"x"})
        hub.requests.clear()
        with pytest.raises(ModelError, match="does not have"):
            download(HubName(NAME))
        assert not [one for one in hub.requests if "onnx" in one]


def test_sizes_are_bounded(hub: Hub, files: dict[str, bytes], monkeypatch: Any) -> None:
    from xmodal.encoders import hub as module

    hub.add(NAME, files)
    with pytest.raises(ModelError, match="expected at most 1,000"):
        download(HubName(NAME), max_bytes=1000)
    # The hub has another size than the one that is recorded: nothing is downloaded.
    hub.add("owner/larger", files | {"text.onnx": files["text.onnx"] + b"x"})
    with pytest.raises(ModelError, match=r"text\.onnx of hf://owner/larger has"):
        download(HubName("owner/larger"))
    assert not [one for one in hub.requests if one.startswith("GET") and "text.onnx" in one]
    # The hub sends more than it says.
    hub.answers_more = True
    hub.add("owner/endless", files)
    monkeypatch.setattr(module, "MAX_CONFIG", len(files["config.json"]))
    with pytest.raises(ModelError, match=r"config\.json of hf://owner/endless has over"):
        download(HubName("owner/endless"))


def test_changed_files_are_found_and_removed(hub: Hub, files: dict[str, bytes]) -> None:
    graph = files["image.onnx"]
    repository = hub.add(NAME, files | {"image.onnx": graph[:-1] + bytes([graph[-1] ^ 1])})
    with pytest.raises(ModelError, match=r"is damaged \(image\.onnx has sha256"):
        download(HubName(NAME))
    repository.commit({"image.onnx": graph})
    assert PortableEncoder.load(download(HubName(NAME)))
