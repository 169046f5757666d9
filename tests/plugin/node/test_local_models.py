"""Libraries of local models: ml-commons runs an ONNX model without a network."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from conftest import CommandResult
from support.hamming_server import Server

from xmodal.errors import ConfigError
from xmodal_opensearch.node import local_models

ML = "_plugins/_ml"
WORDS = {"[PAD]": 0, "[UNK]": 1, "red": 2, "green": 3, "blue": 4}


def archive() -> bytes:
    """Return a model archive whose output is the sum of the token ids and the number of tokens."""
    onnx = pytest.importorskip("onnx", reason="pip install -e '.[export]'")
    tokenizers = pytest.importorskip("tokenizers", reason="pip install -e '.[export]'")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("ReduceSum", ["ids", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["count"], keepdims=1),
        helper.make_node("Concat", ["sum", "count"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["sentence_embedding"], to=kind.FLOAT),
    ]
    inputs = [
        helper.make_tensor_value_info(name, kind.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("sentence_embedding", kind.FLOAT, ["batch", 2])
    axis = helper.make_tensor("axis", kind.INT64, [1], [1])
    graph = helper.make_graph(nodes, "sum", inputs, [output], [axis])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 19)])
    onnx.checker.check_model(model, full_check=True)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("text.onnx", model.SerializeToString())
        packed.writestr("tokenizer.json", tokenizer.to_str())
    return content.getvalue()


@pytest.fixture
def model_id(ml: Server) -> Iterator[str]:
    """A deployed local model with the content of ``archive``."""
    try:
        local_models.check(ml("GET", "")["version"]["number"], [local_models.ML])
    except ConfigError as error:
        pytest.skip(str(error))
    content = archive()
    registered = ml(
        "POST",
        f"{ML}/models/_register_meta",
        {
            "name": "sum-of-tokens",
            "version": "1",
            "function_name": "TEXT_EMBEDDING",
            "model_format": "ONNX",
            "model_content_size_in_bytes": len(content),
            "model_content_hash_value": hashlib.sha256(content).hexdigest(),
            "total_chunks": 1,
            "model_config": {
                "model_type": "distilbert",
                "embedding_dimension": 2,
                "framework_type": "sentence_transformers",
                "pooling_mode": "cls",
            },
        },
    )["model_id"]
    chunk = f"{ml.url}/{ML}/models/{registered}/upload_chunk/0"
    with urlopen(Request(chunk, content, {"content-type": "application/json"}, method="POST")):
        pass
    task = ml("POST", f"{ML}/models/{registered}/_deploy")["task_id"]
    end = time.monotonic() + 60
    while (state := ml("GET", f"{ML}/tasks/{task}"))["state"] not in ("COMPLETED", "FAILED"):
        assert time.monotonic() < end, state
        time.sleep(0.1)
    assert state["state"] == "COMPLETED", state
    yield registered
    ml("POST", f"{ML}/models/{registered}/_undeploy")
    ml("DELETE", f"{ML}/models/{registered}")


def test_node_runs_a_local_model(ml: Server, model_id: str) -> None:
    texts = ["red green", "blue", "blue blue black"]
    body = {
        "text_docs": texts,
        "return_number": True,
        "target_response": ["sentence_embedding"],
    }
    answer = ml("POST", f"{ML}/models/{model_id}/_predict", body)
    found = [one["output"][0]["data"] for one in answer["inference_results"]]
    assert found == [[5, 2], [4, 1], [9, 3]]
    [node] = ml("GET", "_nodes/jvm")["nodes"].values()
    assert [one for one in node["jvm"]["input_arguments"] if "PYTORCH_LIBRARY_PATH" in one]


def test_check_accepts_linux_on_x86_64_with_ml_commons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_models.sys, "platform", "linux")
    monkeypatch.setattr(local_models.platform, "machine", lambda: "x86_64")
    local_models.check("3.6.0", ["opensearch-knn", local_models.ML])
    for version, plugins, word in (
        ("3.6.0", ["opensearch-knn"], "--with-ml"),
        ("2.19.6", [local_models.ML], "2.19.6"),
    ):
        with pytest.raises(ConfigError, match=word):
            local_models.check(version, plugins)


@pytest.mark.parametrize(
    ("system", "machine"), [("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]
)
def test_check_names_a_platform_without_libraries(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(local_models.sys, "platform", system)
    monkeypatch.setattr(local_models.platform, "machine", lambda: machine)
    with pytest.raises(ConfigError, match=f"{system} on {machine}") as raised:
        local_models.check("3.6.0", [local_models.ML])
    assert "\n" not in str(raised.value)


def test_node_command_refuses_local_models_without_ml_commons(
    opensearch_cli: Callable[..., CommandResult], tmp_path: Any
) -> None:
    done = opensearch_cli("node", "--folder", tmp_path / "n", "--local-models")
    assert done.status == 2 and "--with-ml" in done.err.splitlines()[-1]
    assert not (tmp_path / "n").exists()
