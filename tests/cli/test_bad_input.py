"""Unusable arguments and files give one line on standard error, exit status 2, no traceback."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bad_pictures import png_bomb, truncated_jpeg

from xmodal.codes import BinaryCodes
from xmodal.config import Options
from xmodal.data.readers.read import read
from xmodal.encoders.folder import write_config
from xmodal.index.contract import open_index
from xmodal.training.train import train

Run = Callable[..., Any]
PROGRESS = re.compile(
    r".+: [\d,]+ items, [\d,]+ pairs|(captions|labels|pictures)( and labels| only)?: .*|epoch .*|"
    r"column labels .*|.+ has no column labels, .*"
)  # lines of train before the error
SMALL = "--image-backbone small-cnn --text-backbone words --bits 16 --set hidden=32 --set batch=32"

# Name, command, and the datum of the message (a regular expression). {t}: the folder ``bad``.
FILES = [
    ("path missing", "train {t}/nothing --out {t}/m", "/nothing"),
    ("unknown suffix", "train {t}/a.doc --out {t}/m", "'.doc', expected a folder"),
    ("empty folder", "train {t}/empty --out {t}/m", "/empty .*it is empty"),
    ("no captions", "train {t}/bare --out {t}/m", "bare has no pair"),
    ("empty csv", "train {t}/empty.csv --out {t}/m", "is empty, expected a header"),
    ("only a header", "train {t}/header.csv --out {t}/m", "header.csv has no usable item"),
    ("no known columns", "train {t}/x.csv --out {t}/m", "columns x, y; expected"),
    ("column missing", "train {photos_folder} --out {t}/m --text-column z", "no column 'z'"),
    ("column without table", "train {t}/bare --out {t}/m --id-column z", "no metadata table"),
    ("invalid json", "train {t}/broken.json --out {t}/m", "broken.json is not JSON"),
    ("json object", "train {t}/object.json --out {t}/m", "dict, expected a list"),
    ("only bad lines", "train {t}/bad.jsonl --out {t}/m", "2 x bad line"),
    ("damaged parquet", "train {t}/bad.parquet --out {t}/m", "bad.parquet"),
    ("repeated column", "train {t}/repeated.csv --out {t}/m", "text, id, text"),
    ("two metadata tables", "train {t}/two --out {t}/m", "metadata.jsonl and metadata.csv"),
    ("too few pairs", "train {t}/few.jsonl --out {t}/m {small}", "2 pairs .* at least 8"),
    ("no usable picture", "train {t}/damaged.jsonl --out {t}/m {small}", "1 x picture not usable"),
    ("evaluate too few pairs", "evaluate {t}/few.jsonl --model {model}", "at least 8"),
    ("index path missing", "index {t}/nothing --model {model} --index {t}/i", "/nothing"),
    ("encode path missing", "encode {t}/nothing --model {model} --out {t}/c.npz", "/nothing"),
]
TRAIN = "train {photos_folder} --out {t}/m {small} "
ARGUMENTS = [
    ("bits", TRAIN + "--bits 12", "bits is 12"),
    ("bits zero", TRAIN + "--bits 0", "bits is 0"),
    ("bits not a number", TRAIN + "--bits many", "'--bits'"),
    ("method unknown", TRAIN + "--method magic", "'magic', expected one of auto"),
    ("setting unknown", TRAIN + "--set speed=3", "'speed'"),
    ("setting type", TRAIN + "--set epochs=many", "epochs is 'many'"),
    ("setting choice", TRAIN + "--set negatives=all", "expected one of none"),
    ("setting without =", TRAIN + "--set epochs", "NAME=VALUE"),
    ("settings file missing", TRAIN + "--settings {t}/none.json", "none.json"),
    ("settings file invalid", TRAIN + "--settings {t}/broken.json", "broken.json"),
    ("settings file a list", TRAIN + "--settings {t}/list.json", "list.json"),
    ("label share", TRAIN + "--label-share 2", "label share is 2"),
    ("query share", TRAIN + "--query 0.7", "query share is 0.7"),
    ("validation share", TRAIN + "--validation -1", "validation share is -1"),
    ("seed", TRAIN + "--seed -1", "seed is -1"),
    ("out is a file", "train {photos_folder} --out {t}/a.doc {small}", "a.doc is a file"),
    ("out below a file", "train {photos_folder} --out {t}/a.doc/m {small}", "a.doc"),
    ("out has other files", "train {photos_folder} --out {t}/bare {small}", "a.png"),
    ("restart of other files", "train {photos_folder} --out {t}/bare {small} --restart", "a.png"),
    (
        "out has another run",
        "train {photos_folder} --out {model} {small}",
        "another setting",
    ),
    ("command unknown", "fly {photos_folder}", "'fly'"),
    ("option unknown", "index {photos_folder} --wings 2", "'?--wings"),
    ("encode without input", "encode --model {model}", "--text, or --image"),
    ("encode data without out", "encode {photos_folder} --model {model}", "DATA with --out"),
    (
        "encode below a file",
        "encode {photos_folder} --model {model} --out {t}/a.doc/c.npz",
        "a.doc",
    ),
    ("encode text without words", "encode --model {model} --text ...", r"'\.\.\.'"),
    (
        "report below a file",
        "evaluate {photos_folder} --model {model} --out {t}/a.doc/r.json",
        "a.doc",
    ),
    ("trec below a file", "evaluate {photos_folder} --model {model} --trec {t}/a.doc", "a.doc"),
    ("workbench", "evaluate {photos_folder} --model {model} --workbench {t}/a.doc", "a.doc"),
    ("mcp without an index", "mcp --index {t}/none --model {model}", "none"),
    ("mcp without its pictures", "mcp --index {t}/none --pictures {t}/none", "no such folder"),
    (
        "widths differ",
        "evaluate {photos_folder} --model {model} --model {t}/m16",
        "16 bits, .* 32 bits",
    ),
    (
        "cache is a file",
        "index {photos_folder} --model {model} --index {t}/i --cache {t}/a.doc",
        "a.doc",
    ),
    (
        "cache below a file",
        "index {photos_folder} --model {model} --index {t}/i --cache {t}/a.doc/c",
        "a.doc",
    ),
    (
        "cache damaged",
        "index {photos_folder} --model {model} --index {t}/i --cache {t}/cache",
        "not a database.*--cache",
    ),
]
BACKBONE = "train {photos_folder} --out {t}/m --bits 16 "
IMAGE_WEIGHTS = BACKBONE + "--image-backbone '{model}/weights.safetensors"
MODELS = [
    ("offline", BACKBONE + "--text-backbone words", "HF_HUB_OFFLINE"),
    ("backbone unknown", BACKBONE + "--image-backbone 'no model!'", "no model!.*words, small"),
    ("backbone empty", BACKBONE + "--image-backbone ''", "image backbone"),
    ("text backbone for images", BACKBONE + "--image-backbone words", "text.*image"),
    (
        "image backbone for texts",
        BACKBONE + "--image-backbone small-cnn --text-backbone small-cnn",
        "image.*text",
    ),
    ("weights missing", BACKBONE + "--image-backbone {t}/no.safetensors", "no.safetensors"),
    ("weights invalid", BACKBONE + "--image-backbone {t}/alexnet.safetensors", "alexnet.safet"),
    ("weights of another network", IMAGE_WEIGHTS + "?arch=squeezenet1_1'", "linear|architecture"),
    ("weights of other tensors", IMAGE_WEIGHTS + "?arch=mobilenet_v3_small'", "architecture"),
    ("weights without arch", IMAGE_WEIGHTS + "'", "torchvision"),
    ("weights option unknown", IMAGE_WEIGHTS + "?a=b'", "'a'"),
    ("folder without model", BACKBONE + "--image-backbone {t}/bare", "bare.* config"),
    ("encoder missing", "search red --model {t}/nothing --index {index}", "/nothing"),
    ("encoder unfinished", "search red --model {t}/stopped --index {index}", "stopped, .*train"),
    ("config invalid", "search red --model {t}/no-json --index {index}", "no-json.*damaged"),
    ("config of a later format", "search red --model {t}/format --index {index}", "format 99"),
    ("weights truncated", "search red --model {t}/cut --index {index}", "cut.*damaged"),
    ("weights changed", "search red --model {t}/other --index {index}", "sha256"),
    (
        "backbone of another model",
        "search red --model {model} --index {index} --text-backbone small-cnn",
        "image.*text",
    ),
]
SEARCH = "search --model {model} --index {index} "
OTHER_INDEX = "search red --model {model} --index "
SEARCHES = [
    ("index missing", OTHER_INDEX + "{t}/nothing", "/nothing"),
    ("index of another encoder", OTHER_INDEX + "{t}/foreign", "encoder other"),
    ("index of other bits", OTHER_INDEX + "{t}/wide", "64 bits"),
    ("index damaged", OTHER_INDEX + "{t}/damaged", "index.json is damaged"),
    ("earlier index damaged", OTHER_INDEX + "{t}/earlier", "documents.parquet is missing or"),
    ("index truncated", OTHER_INDEX + "{t}/cut.index", "is missing or damaged"),
    ("folder is no index", OTHER_INDEX + "{t}/bare", "bare .*no index.json"),
    ("index scheme unknown", OTHER_INDEX + "nosuch://x", "nosuch://"),
    ("index is a file", "index {photos_folder} --model {model} --index {t}/a.doc", "a.doc"),
    ("index below a file", "index {photos_folder} --model {model} --index {t}/a.doc/i", "a.doc"),
    (
        "add to another encoder",
        "index {photos_folder} --model {model} --index {t}/foreign",
        "encoder other",
    ),
    ("filter invalid", SEARCH + "red --where colour", "'colour'.* field=value"),
    ("filters conflict", SEARCH + "red --where a=1 --where 'a=*'", "'a'"),
    ("distance negative", SEARCH + "red --max-distance -1", "is -1"),
    ("distance not a number", SEARCH + "red --max-distance far", "'--max-distance'"),
    ("k zero", SEARCH + "red -k 0", "k is 0"),
    ("confidence above 1", SEARCH + "red --min-confidence 2", "--min-confidence is 2.0"),
    ("confidence nan", SEARCH + "red --min-confidence nan", "--min-confidence is nan"),
    (
        "confidence within a modality",
        SEARCH + "red --target text --min-confidence 0.5",
        "min_confidence",
    ),
    ("target unknown", SEARCH + "red --target sound", "'--target'"),
    ("no query", SEARCH, "--image"),
    ("query without words", SEARCH + "'!!!'", "'!!!'"),
    ("query empty", SEARCH + "''", "WORDS, --image or --like"),
    ("picture missing", SEARCH + "--image {t}/gone.jpg", "gone.jpg"),
    ("picture is a text", SEARCH + "--image {t}/text.jpg", "text.jpg: not a picture"),
    ("picture truncated", SEARCH + "--image {t}/cut.jpg", "cut.jpg: cannot be decoded"),
    ("picture too large", SEARCH + "--image {t}/bomb.png", "80 million"),
    ("picture is a folder", SEARCH + "--image {t}/bare", "bare: .*not an ordinary file"),
    ("gallery suffix", SEARCH + "red --gallery {t}/hits.pdf", "hits.pdf"),
    ("gallery below a file", SEARCH + "red --gallery {t}/a.doc/hits.png", "a.doc"),
]
CASES = [*FILES, *ARGUMENTS, *MODELS, *SEARCHES]


def write_lines(path: Path, rows: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def bad(
    tmp_path_factory: pytest.TempPathFactory,
    photos_folder: Path,
    model: Path,
    index_path: Path,
    cache: Path,
) -> Path:
    """A folder with unusable files, models and indexes of every kind."""
    folder = tmp_path_factory.mktemp("bad")
    for name in (
        "empty",
        "bare",
        "two",
        "stopped",
        "cache",
        "wide",
        "damaged",
        "earlier",
        "cut.index",
    ):
        (folder / name).mkdir()
    for name in ("bare/a.png", "bare/b.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    texts = {
        "a.doc": "words",
        "text.jpg": "words",
        "empty.csv": "",
        "header.csv": "text,id\n",
        "x.csv": "x,y\n1,2\n",
        "repeated.csv": "text,id,text\na,b,c\n",
        "broken.json": "{not json",
        "object.json": '{"text": "a"}',
        "list.json": "[1, 2]",
        "bad.jsonl": "{not json\n[1]\n",
        "bad.parquet": "PAR1 but no more PAR1",
        "two/metadata.csv": "text\na\n",
        "two/metadata.jsonl": '{"text": "a"}\n',
        "stopped/checkpoint.pt": "",
        "alexnet.safetensors": "words, not weights",
        "damaged/index.json": "{no JSON",
        "earlier/documents.parquet": "PAR1 but no more PAR1",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for file in cache.glob("*.sqlite"):
        (folder / "cache" / file.name).write_text("no database" * 100)
    (folder / "bomb.png").write_bytes(png_bomb(50_000, 50_000))
    (folder / "cut.jpg").write_bytes(truncated_jpeg())
    few = [{"image": str(photos_folder / f"{k:05d}.png"), "text": f"text {k}"} for k in range(4)]
    write_lines(folder / "few.jsonl", few)
    damaged = ({"id": k, "image": "cut.jpg", "text": str(k)} for k in range(9))
    write_lines(folder / "damaged.jsonl", damaged)
    for name, bits in (("foreign", 32), ("wide", 64)):
        index = open_index(folder / name, bits=bits, fingerprint="other", create=True)
        index.add(["a"], image=BinaryCodes(np.zeros((1, bits // 8), np.uint8), bits))
        index.close()
    shutil.copytree(index_path, folder / "cut.index", dirs_exist_ok=True)
    for segment in (folder / "cut.index").glob("segment-*"):
        segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])

    options = Options(bits=16, image_backbone="small-cnn", text_backbone="words")
    train(
        read(photos_folder, label_column="labels"),
        folder / "m16",
        options,
        {"epochs": 1, "batch": 64, "hidden": 16},
    )
    for name in ("no-json", "format", "cut", "other"):
        shutil.copytree(model, folder / name)
    (folder / "no-json/config.json").write_text("{")
    config = json.loads((model / "config.json").read_text())
    write_config(folder / "format", config | {"format": 99})
    weights = (model / "weights.safetensors").read_bytes()
    (folder / "cut/weights.safetensors").write_bytes(weights[: len(weights) // 2])
    (folder / "other/weights.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    return folder


@pytest.mark.parametrize(
    ("command", "datum"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_unusable_input_gives_a_one_line_error(
    command: str,
    datum: str,
    bad: Path,
    photos_folder: Path,
    model: Path,
    index_path: Path,
    xmodal_cli: Run,
) -> None:
    places = {
        "t": bad,
        "photos_folder": photos_folder,
        "model": model,
        "index": index_path,
        "small": SMALL,
    }
    message = xmodal_cli(*shlex.split(command.format(**places))).error_line(PROGRESS)
    assert re.search(datum, message), message
