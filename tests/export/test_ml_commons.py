"""Archive of a text tower for ml-commons: its codes equal those of the portable encoder."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.djl import predict
from support.exported import exported, untrained
from support.model_families import PAIRS, save_pair
from support.text_families import text_model, texts, unigram_tokenizer

from xmodal.encoders.onnx_encoder import ModalityConfig, PortableEncoder
from xmodal.encoders.text_tower import CHUNK_BYTES, TextTower
from xmodal.errors import ConfigError, ModelError

ml_commons = pytest.importorskip("xmodal.export.ml_commons", reason="pip install -e '.[export]'")
ml_commons_tokens = import_module("xmodal.export.ml_commons_tokens")

FAMILIES = ("bert", "roberta", pytest.param("t5", marks=pytest.mark.slow), "siglip")
MORE = ("xlm-roberta", "clip", "metaclip", "distilbert", "mpnet", "albert", "qwen3")
"""Families that are tested with $XMODAL_ALL_TOWERS, because an export takes seconds."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PortableEncoder]:
    """``family(name)``: portable encoder of a text model of a family, exported once."""
    made: dict[str, PortableEncoder] = {}

    def get(name: str) -> PortableEncoder:
        if name not in made:
            folder = tmp_path_factory.mktemp("tower")
            (save_pair if name in PAIRS else text_model)(name, folder / "text")
            made[name] = exported(untrained("small-cnn", str(folder / "text")), folder)
        return made[name]

    return get


def codes_of(encoder: PortableEncoder, given: list[str]) -> Any:
    """Codes by the portable encoder, text by text, as signed bytes."""
    return np.concatenate([encoder.encode_texts([text]).to_signed() for text in given])


@pytest.mark.parametrize("name", FAMILIES + (MORE if os.environ.get("XMODAL_ALL_TOWERS") else ()))
def test_codes_of_the_archive_equal_those_of_the_encoder(
    name: str, family: Callable[[str], PortableEncoder], tmp_path: Path
) -> None:
    encoder = family(name)
    tower = ml_commons.write_text_tower(encoder.folder, tmp_path / "text.zip")
    model_type = tower.model_config["model_type"]
    expected = codes_of(encoder, texts())
    assert len(np.unique(expected, axis=0)) > 10, "the codes do not depend on the text"
    assert np.array_equal(predict(tower.file, model_type, texts()), expected)
    assert np.array_equal(predict(tower.file, model_type, texts(), batch=5), expected), (
        "padding changes codes"
    )


# ---- int8 --------------------------------------------------------------------------------------


def test_int8_has_a_fingerprint_of_its_own(
    family: Callable[[str], PortableEncoder], tmp_path: Path
) -> None:
    encoder = family("bert")
    before = {path: path.read_bytes() for path in encoder.folder.iterdir() if path.is_file()}
    plain = ml_commons.write_text_tower(encoder.folder, tmp_path / "plain.zip")
    tower = ml_commons.write_text_tower(encoder.folder, tmp_path / "small.zip", int8=True)
    assert (tower.precision, plain.precision) == ("int8", "float32")
    assert tower.fingerprint != plain.fingerprint == encoder.fingerprint
    assert tower.size < plain.size
    assert {path: path.read_bytes() for path in before} == before, "the encoder was changed"
    sample_texts, codes = zip(*tower.samples, strict=True)
    found = predict(tower.file, tower.model_config["model_type"], sample_texts)
    assert found.tolist() == [list(code) for code in codes]
    again = ml_commons.write_text_tower(encoder.folder, tmp_path / "again.zip", int8=True)
    assert (again.fingerprint, again.sha256) == (tower.fingerprint, tower.sha256)


def test_an_int8_encoder_gives_an_int8_archive(
    family: Callable[[str], PortableEncoder], tmp_path: Path
) -> None:
    from xmodal.export import Check, export

    trained = family("bert").folder.parent / "x.model"
    small = export(trained, tmp_path / "small.onnx", int8=True, check=Check(items=5))
    tower = ml_commons.write_text_tower(small.folder, tmp_path / "small.zip")
    assert tower.precision == "int8"
    assert tower.fingerprint not in (small.fingerprint, family("bert").fingerprint)
    same = ml_commons.write_text_tower(family("bert").folder, tmp_path / "b.zip", int8=True)
    assert tower.fingerprint == same.fingerprint
    given = texts()[:20]
    found = predict(tower.file, tower.model_config["model_type"], given)
    differing = np.unpackbits(((found ^ codes_of(small, given)) & 255).astype(np.uint8))
    assert differing.mean() < tower.max_differing_share


# ---- the archive -------------------------------------------------------------------------------


def test_the_archive_has_what_onnxruntime_1_16_reads(
    family: Callable[[str], PortableEncoder], tmp_path: Path
) -> None:
    towers = [
        ml_commons.write_text_tower(family("bert").folder, tmp_path / name)
        for name in ("a.zip", "b.zip")
    ]
    assert towers[0].sha256 == towers[1].sha256, "the same model gives another archive"
    with zipfile.ZipFile(towers[0].file) as archive:
        assert sorted(archive.namelist()) == ["text.onnx", "tokenizer.json"]
        model = onnx.load_from_string(archive.read("text.onnx"))
    assert model.ir_version == 9
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 19)]
    assert "Gelu" not in {node.op_type for node in model.graph.node}
    assert [one.name for one in model.graph.output] == ["sentence_embedding"]
    rounded, cast = (
        {name for node in model.graph.node if node.op_type == "Cast" for name in names(node)}
        for names in (lambda node: node.output, lambda node: node.input)
    )
    assert not rounded & cast - {"codes"}, "onnxruntime 1.16 removes a Cast of a Cast"
    tower = towers[0]
    assert b"".join(tower.chunks()) == tower.file.read_bytes()
    assert all(len(chunk) <= CHUNK_BYTES for chunk in tower.chunks())
    assert TextTower.load(tower.file) == TextTower.load(tmp_path / "a.json") == tower


def test_a_damaged_archive_is_refused(
    family: Callable[[str], PortableEncoder], tmp_path: Path
) -> None:
    tower = ml_commons.write_text_tower(family("bert").folder, tmp_path / "a.zip")
    whole, described = tower.file.read_bytes(), (tmp_path / "a.json").read_text()
    for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], b""):
        tower.file.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"a\.zip"):
            TextTower.load(tower.file)
    tower.file.write_bytes(whole)
    changed = described.replace(f'"fingerprint": "{tower.fingerprint}"', '"fingerprint": "0"')
    for text in (changed, described[:-9], "[]", "{}", '{"kind": 3}'):
        assert text != described
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ModelError, match=r"a\.json"):
            TextTower.load(tower.file)
    (tmp_path / "a.json").unlink()
    with pytest.raises(ModelError, match=r"a\.json"):
        TextTower.load(tower.file)


# ---- refused models ----------------------------------------------------------------------------


def test_words_are_refused(portable: PortableEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="words"):
        ml_commons.write_text_tower(portable.folder, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def config(**changes: Any) -> ModalityConfig:
    values = {"tokenizer": "tokenizer.json", "max_tokens": 24, "padding": "longest"} | changes
    return ModalityConfig("text.onnx", "tokens", ("input_ids",), 16, False, 64, **values)


def wordpiece() -> Any:
    """A tokenizer as that of BERT."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz:?!"
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "circle", "query", "the"]
    vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    out = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    out.normalizer = normalizers.BertNormalizer()
    out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    out.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    out.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    return out


@pytest.mark.parametrize("prompt", ["Query: ", "the [SEP] red\n"])
def test_tokens_of_a_prompt_are_in_the_tokenizer(prompt: str) -> None:
    original = wordpiece()
    original.enable_truncation(24)
    tokens = ml_commons_tokens.ml_commons_tokenizer(original.to_str(), config(prompt=prompt))
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokens.json)
    found.enable_truncation(24)
    for text in texts():
        one, other = found.encode(text), original.encode(prompt + text)
        assert (one.ids, one.type_ids) == (other.ids, other.type_ids), text
    assert tokens.ending == {"input_ids": [2], "token_type_ids": [0]}


def test_prompts_that_depend_on_the_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="Query:"):
        ml_commons_tokens.ml_commons_tokenizer(wordpiece().to_str(), config(prompt="Query:"))
    unigram = unigram_tokenizer(24).backend_tokenizer.to_str()
    with pytest.raises(ConfigError, match="query"):
        ml_commons_tokens.ml_commons_tokenizer(unigram, config(prompt="query: "))


def test_truncation_at_the_start_is_refused() -> None:
    tokenizer = wordpiece()
    tokenizer.enable_truncation(24, direction="left")
    with pytest.raises(ConfigError, match="truncates texts at their start"):
        ml_commons_tokens.ml_commons_tokenizer(tokenizer.to_str(), config())


def test_texts_without_a_token_are_refused() -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = None
    with pytest.raises(ConfigError, match="no special token"):
        ml_commons_tokens.ml_commons_tokenizer(tokenizer.to_str(), config())


@pytest.mark.parametrize("limit", [None, 513, 8192])
def test_more_tokens_than_ml_commons_reads_are_refused(limit: int | None) -> None:
    with pytest.raises(ConfigError, match=str(limit)):
        ml_commons.check_config(config(max_tokens=limit))


# ---- the command -------------------------------------------------------------------------------


def test_the_command_writes_an_archive(
    family: Callable[[str], PortableEncoder], xmodal_cli: Any, tmp_path: Path
) -> None:
    out = tmp_path / "text.zip"
    arguments = ("export", "--model", family("bert").folder, "--ml-commons", out)
    assert xmodal_cli(*arguments, "--int8").status == 0
    small = TextTower.load(out)
    refused = xmodal_cli(*arguments)
    assert refused.status == 2 and "--restart" in refused.err
    assert TextTower.load(out) == small
    done = xmodal_cli(*arguments, "--restart", "--json")
    assert done.status == 0, done.err
    tower = TextTower.load(out)
    shown = json.loads(done.out)
    assert tower.precision == "float32"
    assert (shown["fingerprint"], shown["sha256"]) == (tower.fingerprint, tower.sha256)
    both = xmodal_cli(*arguments, "--restart", "--check", tmp_path)
    assert both.status == 2 and "--check" in both.err
