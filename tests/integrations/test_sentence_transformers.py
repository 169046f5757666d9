"""Encoders as SentenceTransformer: bytes, similarity, inputs, folders, command, errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.absent import command, environment

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.index.contract import open_index
from xmodal.retrieval.retriever import Retriever

sentence_transformers = pytest.importorskip(
    "sentence_transformers", reason="pip install -e '.[sentence-transformers]'"
)
Run = Callable[..., Any]
TEXTS = ["a red circle on the left", "two dogs", "a blue square", "photo.jpg"]


@pytest.fixture(scope="module")
def folder(portable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable encoder of the tests for SentenceTransformer."""
    from xmodal.integrations.sentence_folder import write_sentence_folder

    out = tmp_path_factory.mktemp("st") / "toy.st"
    write_sentence_folder(portable_path, out)
    return out


@pytest.fixture(scope="module")
def st(folder: Path) -> Any:
    """The model that sentence-transformers loads from ``folder``."""
    return sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True)


@pytest.fixture(scope="module")
def pictures(dataset: Dataset) -> list[Path]:
    return [Path(str(item.images[0])) for item in dataset.items[:40]]


def test_texts_have_the_bytes_of_the_encoder(st: Any, portable: PortableEncoder) -> None:
    codes = portable.encode_texts(TEXTS)
    packed = st.encode(TEXTS, precision="ubinary", batch_size=3)
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(packed, codes.packed)
    binary = st.encode(TEXTS, precision="binary")
    assert binary.dtype == np.int8
    np.testing.assert_array_equal(binary.view(np.uint8) ^ 0x80, codes.packed)
    np.testing.assert_array_equal(binary.astype(int), codes.packed.astype(int) - 128)
    np.testing.assert_array_equal(st.encode(TEXTS), codes.to_signs())
    np.testing.assert_array_equal(st.encode(TEXTS[0], precision="ubinary"), codes.packed[0])
    assert st.encode([], precision="ubinary").size == 0


def test_pictures_have_the_bytes_of_the_encoder(
    st: Any, portable: PortableEncoder, pictures: list[Path]
) -> None:
    codes = portable.encode_images(pictures)
    opened = [Image.open(path) for path in pictures]
    arrays = [np.asarray(one.convert("RGB")) for one in opened]
    for given in (
        [str(path) for path in pictures],
        pictures,
        [path.read_bytes() for path in pictures],
        opened,
        arrays,
        [array.transpose(2, 0, 1) for array in arrays],
        [{"image": one} for one in opened],
    ):
        np.testing.assert_array_equal(st.encode(given, precision="ubinary"), codes.packed)


def test_similarity_is_the_hamming_distance(
    st: Any, portable: PortableEncoder, pictures: list[Path]
) -> None:
    texts, images = portable.encode_texts(TEXTS), portable.encode_images(pictures)
    found = st.similarity(st.encode(TEXTS), st.encode(pictures)).numpy()
    differing = texts.packed[:, None] ^ images.packed[None]
    distances = np.bitwise_count(differing).sum(axis=2, dtype=int)
    np.testing.assert_array_equal((portable.bits - found) / 2, distances)
    assert st.similarity_fn_name == "dot"
    assert st.get_embedding_dimension() == portable.bits


def test_searches_with_its_codes_equal_those_of_the_retriever(
    st: Any, portable: PortableEncoder, index_path: Path
) -> None:
    index = open_index(index_path)
    retriever = Retriever(portable, index)
    codes = BinaryCodes(st.encode(TEXTS, precision="ubinary"), portable.bits)
    for text, hits in zip(TEXTS, index.search(codes, 20, target="image"), strict=True):
        found = retriever.search(text=text, target="image", k=20, by="codes", stage="hamming")
        assert [hit[:2] for hit in hits] == [hit[:2] for hit in found]
    index.close()


def test_queries_documents_prompts_and_outputs(st: Any, portable: PortableEncoder) -> None:
    codes = portable.encode_texts(TEXTS).packed
    for encode in (st.encode_query, st.encode_document):
        np.testing.assert_array_equal(encode(TEXTS, precision="ubinary"), codes)
    expected = portable.encode_texts([f"a red {text}" for text in TEXTS]).packed
    found = st.encode(TEXTS, prompt="a red ", precision="ubinary")
    np.testing.assert_array_equal(found, expected)
    (one,) = st.encode(TEXTS[:1], output_value=None)
    outputs = portable.encode("text", TEXTS[:1]).outputs
    assert outputs is not None
    np.testing.assert_array_equal(one["outputs"].numpy(), outputs[0])


def test_a_picture_is_told_from_a_text_by_its_form(
    st: Any, portable: PortableEncoder, pictures: list[Path]
) -> None:
    """The path of a picture that exists is a picture, and in a dict what its key says."""
    path = str(pictures[0])
    assert (st.encode(path, precision="ubinary") == portable.encode_images([path]).packed).all()
    text = st.encode({"text": path}, precision="ubinary")
    assert (text == portable.encode_texts([path]).packed).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["https://example.org/a.jpg"], "local file"),
        (["data:image/png;base64,AAAA"], "local file"),
        ([np.zeros((4, 4, 3), np.float32)], "uint8"),
        ([np.zeros((5, 4, 5), np.uint8)], "shape"),
        ([("a", "b")], "tuple"),
        ([3], "int"),
        ([b"no picture"], "picture"),
    ],
)
def test_unusable_inputs_are_one_line(st: Any, given: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        st.encode(given)
    assert "\n" not in str(caught.value)


def test_texts_and_pictures_of_one_call_are_refused(st: Any) -> None:
    with pytest.raises(ValueError, match="modalit"):
        st.encode(["a text", Image.new("RGB", (8, 8))])


def test_load_needs_no_remote_code(
    folder: Path, model: Path, encoder: Encoder, portable: PortableEncoder, tmp_path: Path
) -> None:
    from xmodal.integrations.sentence_transformers import load

    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.SentenceTransformer(str(folder))
    expected = portable.encode_texts(TEXTS).packed
    assert (load(folder).encode(TEXTS, precision="ubinary") == expected).all()
    trained = load(model, engine="torch")
    assert (trained.encode(TEXTS, precision="ubinary") == encoder.encode_texts(TEXTS).packed).all()
    with pytest.raises(ConfigError, match="xmodal export"):
        trained.save(str(tmp_path / "saved"), create_model_card=False)
    with pytest.raises(ModelError, match="no finished encoder"):
        load(tmp_path)


def test_saved_model_is_loaded_again(st: Any, folder: Path, tmp_path: Path) -> None:
    st.save(str(tmp_path / "again"))
    again = sentence_transformers.SentenceTransformer(
        str(tmp_path / "again"), trust_remote_code=True
    )
    assert (again.encode(TEXTS) == st.encode(TEXTS)).all()
    assert again.similarity_fn_name == "dot"
    assert PortableEncoder.load(tmp_path / "again").fingerprint in repr(again)
    card = (folder / "README.md").read_text()
    st.save(str(folder), create_model_card=False)  # onto itself
    assert (folder / "README.md").read_text() == card


def test_export_writes_the_folder(
    xmodal_cli: Run, portable_path: Path, portable: PortableEncoder, tmp_path: Path
) -> None:
    out = tmp_path / "my.st"
    given = ("export", "--model", portable_path, "--sentence-transformers", out)
    result = xmodal_cli(*given)
    assert result.status == 0 and f"encoder {portable.fingerprint}" in result.out
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in portable_path.iterdir()),
        *("modules.json", "config_sentence_transformers.json"),
    }
    assert "exists already" in xmodal_cli(*given).err
    again = xmodal_cli(*given, "--restart", "--json")
    assert json.loads(again.out)["bits"] == portable.bits
    assert "different exports" in xmodal_cli(*given, "--onnx", tmp_path / "x").err
    assert "leave --check and --int8 out" in xmodal_cli(*given, "--restart", "--int8").err
    # It is a portable encoder for every command.
    encoded = xmodal_cli("encode", "--text", "two dogs", "--model", out)
    assert portable.encode_texts(["two dogs"]).packed[0].tobytes().hex() in encoded.out


def test_damaged_and_missing_encoders(
    xmodal_cli: Run, model: Path, portable_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(portable_path, tmp_path / "copy")
    with open(tmp_path / "copy/text.onnx", "r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2\3")
    out = tmp_path / "out"
    for source, words in ((tmp_path / "copy", "damaged"), (model, "no portable encoder")):
        given = ("export", "--model", source, "--sentence-transformers", out)
        result = xmodal_cli(*given)
        assert result.status == 2 and words in result.err and len(result.err.splitlines()) == 1
        assert not out.exists()


def test_folder_is_written_without_the_package(portable_path: Path, tmp_path: Path) -> None:
    absent = ("torch", "sentence_transformers")
    given = ("export", "--model", portable_path, "--sentence-transformers", tmp_path / "out")
    line = command(absent, *given)
    done = subprocess.run(line, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from xmodal.errors import missing_extra\n"
        "try:\n    import xmodal.integrations.sentence_transformers\n"
        "except ImportError as error:\n    print(missing_extra(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
    )
    assert "[sentence-transformers]" in done.stdout, done.stderr
