"""Encoders are uploaded to a hub, with a model card."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hub_server import Hub

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.hub import HubName
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, ModelError

pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
# The client uploads files by a keyword that its HTTP library renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TEXTS = ["a red circle on the left", "two dogs"]
NAME = "owner/toy"


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
