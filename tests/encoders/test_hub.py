"""Encoders on a model hub that runs here: names, downloads, uploads, model card, errors."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.absent import command, environment
from support.hub_server import Hub, running_hub

from xmodal.checksums import with_digest
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.hub import HubName, download, is_hub_name
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, ModelError

pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
# The client uploads files by a keyword that its HTTP library renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
Run = Callable[..., Any]
TEXTS = ["a red circle on the left", "two dogs"]
NAME = "owner/toy"
PATTERN = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which the client uses with an empty cache and no token."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as hub:
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + PATTERN,
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub


@pytest.fixture
def files(portable_path: Path) -> dict[str, bytes]:
    """The files of a portable encoder."""
    return {path.name: path.read_bytes() for path in portable_path.iterdir()}


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


# ---- upload ----------------------------------------------------------------------------------


def test_pushed_encoder_is_loaded_again(
    hub: Hub, portable: PortableEncoder, portable_path: Path
) -> None:
    from huggingface_hub import ModelCard

    hub.token = "hf_secret"
    commit = portable.push_to_hub(NAME, private=True, token="hf_secret", licence="apache-2.0")
    repository = hub.repositories[NAME]
    assert commit.endswith(repository.refs["main"]) and repository.private
    pushed = repository.commits[repository.refs["main"]]
    expected = {path.name: path.read_bytes() for path in portable_path.iterdir()}
    assert pushed.keys() == expected.keys() | {".gitattributes"}
    for name in expected.keys() - {"README.md"}:
        assert pushed[name] == expected[name]
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.library_name == "xmodal" and card.data.license == "apache-2.0"
    assert "onnx" in (card.data.tags or [])
    assert card.text.lstrip().startswith("# toy\n") and f"--model hf://{NAME} " in card.text
    assert "--model toy.onnx" not in card.text
    found = Encoder.from_pretrained(NAME, token="hf_secret")
    assert (found.encode_texts(TEXTS).packed == portable.encode_texts(TEXTS).packed).all()


def test_card_has_the_figures_of_the_report(portable_path: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    from xmodal.encoders.hub_push import hub_card

    figures = {"image->text": {"mAP": 0.25}, "text->image": {"mAP": 0.75}}
    captions = {"query": {"image_to_text": {"r10": 0.5}, "text_to_image": {"r10": 0.625}}}
    report = {"name": "own", "rows": {"own": figures, "chance": figures}, "captions": captions}
    config = {"report": report, "data": {"name": "photos"}}
    data = ModelCard(hub_card(portable_path, HubName(NAME), config)).data
    found = {(one.metric_type, one.task_name): one.metric_value for one in data.eval_results or []}
    assert found == {
        ("map", "image to text"): 0.25,
        ("map", "text to image"): 0.75,
        ("recall_at_10", "image to text"): 0.5,
        ("recall_at_10", "text to image"): 0.625,
    }
    assert data.model_name == "toy" and len(data.eval_results or []) == 4
    # Metadata that its owner wrote is kept.
    (tmp_path / "README.md").write_text("---\nlicense: mit\ntags: [own]\n---\n# My model\n")
    data = ModelCard(hub_card(tmp_path, HubName(NAME), {})).data
    assert (data.license, data.tags, data.library_name) == ("mit", ["own"], "xmodal")
    (tmp_path / "README.md").write_text("---\n- [\n---\n# My model\n")
    with pytest.raises(ConfigError, match="metadata of"):
        hub_card(tmp_path, HubName(NAME), {})


def test_what_cannot_be_pushed(
    hub: Hub, encoder: Encoder, portable: PortableEncoder, portable_path: Path, tmp_path: Path
) -> None:
    from xmodal.encoders.hub_push import push

    with pytest.raises(ConfigError, match="portable"):
        encoder.push_to_hub(NAME)
    with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
        portable.push_to_hub("toy")
    hub.token = "hf_secret"
    with pytest.raises(ModelError, match="log in") as caught:
        portable.push_to_hub(NAME, token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    hub.refuses_objects = True
    with pytest.raises(ModelError, match="was not uploaded") as caught:
        portable.push_to_hub(NAME, token="hf_secret")
    assert "\n" not in str(caught.value)
    hub.repositories.clear()
    for path in portable_path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with open(tmp_path / "text.onnx", "r+b") as file:
        file.write(b"changed")
    with pytest.raises(ModelError, match="damaged"):
        push(tmp_path, NAME, token="hf_secret")
    assert not hub.repositories


# ---- commands --------------------------------------------------------------------------------


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
