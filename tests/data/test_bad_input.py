"""Every kind of bad input is answered in one line that says what is wrong, never a trace."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bad_pictures import png_that_claims, truncated_jpeg

from xmodal.codes import BinaryCodes
from xmodal.config import Options
from xmodal.data.readers.tables import read
from xmodal.index.contract import open_index
from xmodal.training.train import train

Run = Callable[..., Any]
ANNOUNCED = re.compile(
    r".+: [\d,]+ items, [\d,]+ pairs|epoch .*|column labels .*|.+ has no column labels, .*"
)  # what train says before it works
SMALL = "--image-backbone small-cnn --text-backbone words --bits 16 --set hidden=32 --set batch=32"

# Name, command, and words of its message. {t}: the folder of bad things.
FILES = [
    ("nothing there", "train {t}/nothing --out {t}/m", "there is nothing at"),
    ("wrong ending", "train {t}/a.doc --out {t}/m", "has the ending '.doc', expected a folder"),
    ("empty folder", "train {t}/empty --out {t}/m", "no item that could be used: it is empty"),
    ("no captions", "train {t}/bare --out {t}/m", "has no pair of a picture and a text among 2"),
    ("empty csv", "train {t}/empty.csv --out {t}/m", "is empty, expected a header line"),
    ("only a header", "train {t}/header.csv --out {t}/m", "no item that could be used"),
    ("columns unknown", "train {t}/x.csv --out {t}/m", "columns x, y; expected one with pictures"),
    ("column not there", "train {world} --out {t}/m --text-column z", "has no column 'z'; its"),
    ("column without a table", "train {t}/bare --out {t}/m --id-column z", "no metadata table"),
    ("not json", "train {t}/broken.json --out {t}/m", "is not JSON"),
    ("json of another kind", "train {t}/object.json --out {t}/m", "a JSON dict, expected a list"),
    ("only bad lines", "train {t}/bad.jsonl --out {t}/m", "no item that could be used: 2 x bad"),
    ("damaged parquet", "train {t}/bad.parquet --out {t}/m", "is not a readable Parquet file"),
    ("a column twice", "train {t}/twice.csv --out {t}/m", "names a column twice: text, id, text"),
    ("two metadata tables", "train {t}/two --out {t}/m", "metadata.jsonl and metadata.csv"),
    ("too few pairs", "train {t}/few.jsonl --out {t}/m {small}", "leaves 2 pairs .* at least 8"),
    ("no good picture", "train {t}/rot.jsonl --out {t}/m {small}", "at least 8; .*picture not usa"),
    ("evaluate too few", "evaluate {t}/few.jsonl --model {model}", "at least 8"),
    ("index nothing there", "index {t}/nothing --model {model} --index {t}/i", "there is nothing"),
    ("encode nothing there", "encode {t}/nothing --model {model} --out {t}/c.npz", "is nothing at"),
]
ARGUMENTS = [
    ("bits", "train {world} --out {t}/m {small} --bits 12", "bits is 12, expected a multiple of 8"),
    ("no bits", "train {world} --out {t}/m {small} --bits 0", "multiple of 8"),
    ("bits no number", "train {world} --out {t}/m --bits many", "Invalid value for '--bits'"),
    (
        "method",
        "train {world} --out {t}/m --method magic",
        "no method 'magic', expected one of sch",
    ),
    (
        "setting unknown",
        "train {world} --out {t}/m --set speed=3",
        "no setting 'speed'",
    ),
    (
        "setting type",
        "train {world} --out {t}/m --set epochs=many",
        "epochs is 'many', expected a w",
    ),
    ("setting choice", "train {world} --out {t}/m --set negatives=all", "expected one of policy"),
    ("setting without =", "train {world} --out {t}/m --set epochs", "expected NAME=VALUE"),
    (
        "settings missing",
        "train {world} --out {t}/m --settings {t}/none.json",
        "cannot be read from",
    ),
    ("settings broken", "train {world} --out {t}/m --settings {t}/broken.json", "cannot be read"),
    ("settings a list", "train {world} --out {t}/m --settings {t}/list.json", "no JSON object"),
    ("label share", "train {world} --out {t}/m {small} --label-share 2", "label share is 2"),
    ("query share", "train {world} --out {t}/m {small} --query 0.7", "query share is 0.7"),
    (
        "validation share",
        "train {world} --out {t}/m {small} --validation -1",
        "validation share is",
    ),
    ("seed", "train {world} --out {t}/m {small} --seed -1", "seed is -1, expected"),
    ("out missing", "train {world}", "Missing option '--out'"),
    ("out a file", "train {world} --out {t}/a.doc {small}", "is a file, expected a folder"),
    ("out in a file", "train {world} --out {t}/a.doc/m {small}", "a.doc"),
    ("out with other things", "train {world} --out {t}/bare {small}", "with other things in it"),
    ("restart there", "train {world} --out {t}/bare {small} --restart", "with other things in it"),
    ("out of another run", "train {world} --out {model} {small}", "with other data or settings"),
    ("no command", "fly {world}", "No such command 'fly'"),
    ("no option", "index {world} --wings 2", "No such option:? '?--wings"),
    ("encode nothing", "encode --model {model}", "give DATA with --out, or --text, or --image"),
    ("encode into nothing", "encode {world} --model {model}", "give DATA with --out"),
    ("encode into a file", "encode {world} --model {model} --out {t}/a.doc/c.npz", "a.doc"),
    (
        "encode no words",
        "encode --model {model} --text ...",
        "without anything that the backbone can read",
    ),
    ("report in a file", "evaluate {world} --model {model} --out {t}/a.doc/r.json", "a.doc"),
    ("trec in a file", "evaluate {world} --model {model} --trec {t}/a.doc", "a.doc"),
    ("widths", "evaluate {world} --model {model} --model {t}/m16", "of 16 bits, .* of 32 bits"),
    (
        "cache a file",
        "index {world} --model {model} --index {t}/i --cache {t}/a.doc",
        "feature cache",
    ),
    ("cache in a file", "index {world} --model {model} --index {t}/i --cache {t}/a.doc/c", "cache"),
    (
        "cache damaged",
        "index {world} --model {model} --index {t}/i --cache {t}/cache",
        "--cache or X",
    ),
]
BACKBONE = "train {world} --out {t}/m --bits 16 "
MODELS = [
    (
        "offline",
        BACKBONE + "--text-backbone words",
        "HF_HUB_OFFLINE is set",
    ),
    (
        "no such name",
        BACKBONE + "--image-backbone 'no model!'",
        "is unknown: expected words, small",
    ),
    ("no name", BACKBONE + "--image-backbone ''", "image backbone is empty"),
    (
        "words for pictures",
        BACKBONE + "--image-backbone words",
        "words .* expected one for images",
    ),
    (
        "pixels for texts",
        BACKBONE + "--image-backbone small-cnn --text-backbone small-cnn",
        "small-cnn .* expected one for texts",
    ),
    ("weights missing", BACKBONE + "--image-backbone {t}/no.safetensors", "no weights file at"),
    (
        "weights broken",
        BACKBONE + "--image-backbone {t}/alexnet.safetensors",
        "not a readable safet",
    ),
    (
        "weights of another network",
        BACKBONE + "--image-backbone '{model}/weights.safetensors?arch=squeezenet1_1'",
        "no linear layer|lacks",
    ),
    (
        "weights of a network with other tensors",
        BACKBONE + "--image-backbone '{model}/weights.safetensors?arch=mobilenet_v3_small'",
        "lacks .* tensors",
    ),
    (
        "weights of what",
        BACKBONE + "--image-backbone {model}/weights.safetensors",
        "torchvision model",
    ),
    (
        "weights option",
        BACKBONE + "--image-backbone '{model}/weights.safetensors?a=b'",
        "option 'a'",
    ),
    ("no model in folder", BACKBONE + "--image-backbone {t}/bare", "expected a folder with config"),
    (
        "no encoder",
        "search red --model {t}/nothing --index {index}",
        "there is no finished encoder",
    ),
    ("unfinished", "search red --model {t}/stopped --index {index}", "training there was stopped"),
    ("config broken", "search red --model {t}/no-json --index {index}", "is damaged"),
    (
        "config of the future",
        "search red --model {t}/format --index {index}",
        "format 99, this vers",
    ),
    ("weights truncated", "search red --model {t}/cut --index {index}", "is damaged"),
    (
        "weights changed",
        "search red --model {t}/other --index {index}",
        "weights.safetensors has sha256",
    ),
    (
        "not its backbone",
        "search red --model {model} --index {index} --text-backbone small-cnn",
        "expected one for texts",
    ),
]
SEARCH = "search --model {model} --index {index} "
SEARCHES = [
    ("index missing", "search red --model {model} --index {t}/nothing", "no index at .* make one"),
    (
        "index of other",
        "search red --model {model} --index {t}/theirs",
        "was filled by encoder other",
    ),
    (
        "index of other bits",
        "search red --model {model} --index {t}/wide",
        "holds codes of 64 bits",
    ),
    ("index damaged", "search red --model {model} --index {t}/damaged", "is damaged"),
    ("index cut", "search red --model {model} --index {t}/cut.index", "is damaged"),
    (
        "no index in folder",
        "search red --model {model} --index {t}/bare",
        "exists and is not an index",
    ),
    (
        "index a file",
        "index {world} --model {model} --index {t}/a.doc",
        "exists and is not an index",
    ),
    ("index in a file", "index {world} --model {model} --index {t}/a.doc/i", "a.doc"),
    (
        "index of who",
        "search red --model {model} --index nosuch://x",
        "no index backend for nosuch://",
    ),
    (
        "index other's",
        "index {world} --model {model} --index {t}/theirs",
        "was filled by encoder other",
    ),
    (
        "filter",
        SEARCH + "red --where colour",
        "filter 'colour' not understood, expected field=value",
    ),
    (
        "filters",
        SEARCH + "red --where a=1 --where 'a=*'",
        "cannot be combined with another one on 'a'",
    ),
    ("distance", SEARCH + "red --max-distance -1", "radius is -1|--max-distance is -1"),
    ("distance no number", SEARCH + "red --max-distance far", "Invalid value for '--max-distance'"),
    ("no hits", SEARCH + "red -k 0", "k is 0, expected at least 1"),
    (
        "confidence",
        SEARCH + "red --min-confidence 2",
        "--min-confidence is 2.0, expected between 0",
    ),
    ("confidence nan", SEARCH + "red --min-confidence nan", "--min-confidence is nan, expected"),
    ("too sure", SEARCH + "red --min-confidence 1", "confidence of 1.0 is above"),
    (
        "confidence of one side",
        SEARCH + "red --target text --min-confidence 0.5",
        "between pictures and texts only",
    ),
    ("target", SEARCH + "red --target sound", "Invalid value for '--target'"),
    ("nothing to search", SEARCH, "search by words or by --image, one of them"),
    ("both", SEARCH + "red --image {t}/bare/a.png", "search by words or by --image, one of them"),
    ("nothing to read", SEARCH + "'!!!'", "without anything that the backbone can read: '!!!'"),
    ("no words", SEARCH + "''", "without anything that the backbone can read"),
    ("picture missing", SEARCH + "--image {t}/gone.jpg", "gone.jpg: there is no such picture"),
    (
        "picture of words",
        SEARCH + "--image {t}/text.jpg",
        "text.jpg: not a picture in a known format",
    ),
    ("picture truncated", SEARCH + "--image {t}/cut.jpg", "cut.jpg: cannot be decoded"),
    ("picture too large", SEARCH + "--image {t}/bomb.png", "million; make it smaller"),
    ("picture a folder", SEARCH + "--image {t}/bare", "bare: cannot be decoded"),
    ("gallery", SEARCH + "red --gallery {t}/hits.pdf", "ends in .html or .png, found 'hits.pdf'"),
    ("gallery in a file", SEARCH + "red --gallery {t}/a.doc/hits.png", "a.doc"),
]
TABLE = [*FILES, *ARGUMENTS, *MODELS, *SEARCHES]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def bad(
    tmp_path_factory: pytest.TempPathFactory, world: Path, model: Path, index_path: Path
) -> Path:
    """A folder with a bad thing of every kind."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty", "bare", "two", "stopped", "cache", "wide", "damaged", "cut.index"):
        (folder / name).mkdir()
    for name in ("bare/a.png", "bare/b.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    texts = {
        "a.doc": "words",
        "text.jpg": "words",
        "empty.csv": "",
        "header.csv": "text,id\n",
        "x.csv": "x,y\n1,2\n",
        "twice.csv": "text,id,text\na,b,c\n",
        "broken.json": "{not json",
        "object.json": '{"text": "a"}',
        "list.json": "[1, 2]",
        "bad.jsonl": "{not json\n[1]\n",
        "bad.parquet": "PAR1 but no more PAR1",
        "two/metadata.csv": "text\na\n",
        "two/metadata.jsonl": '{"text": "a"}\n',
        "stopped/checkpoint.pt": "",
        "alexnet.safetensors": "words, not weights",
        "cache/words-1-2.sqlite": "words, not a database" * 100,
        "damaged/documents.parquet": "PAR1 but no more PAR1",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "bomb.png").write_bytes(png_that_claims(50_000, 50_000))
    (folder / "cut.jpg").write_bytes(truncated_jpeg())
    few = [{"image": str(world / f"{k:05d}.png"), "text": f"text {k}"} for k in range(4)]
    lines(folder / "few.jsonl", *few)
    lines(folder / "rot.jsonl", *({"id": k, "image": "cut.jpg", "text": str(k)} for k in range(9)))
    for name, bits, encoder in (("theirs", 32, "other"), ("wide", 64, "other")):
        index = open_index(folder / name, bits=bits, fingerprint=encoder, create=True)
        index.add(["a"], image=BinaryCodes(np.zeros((1, bits // 8), np.uint8), bits))
        index.close()
    whole = (index_path / "documents.parquet").read_bytes()
    (folder / "cut.index" / "documents.parquet").write_bytes(whole[: len(whole) // 2])

    options = Options(bits=16, image_backbone="small-cnn", text_backbone="words")
    train(
        read(world, label_column="labels"),
        folder / "m16",
        options,
        {"epochs": 1, "batch": 64, "hidden": 16},
    )
    for name in ("no-json", "format", "cut", "other"):
        shutil.copytree(model, folder / name)
    (folder / "no-json/config.json").write_text("{")
    config = json.loads((model / "config.json").read_text())
    (folder / "format/config.json").write_text(json.dumps(config | {"format": 99}))
    weights = (model / "weights.safetensors").read_bytes()
    (folder / "cut/weights.safetensors").write_bytes(weights[: len(weights) // 2])
    (folder / "other/weights.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    return folder


@pytest.mark.parametrize(
    ("command", "words"), [case[1:] for case in TABLE], ids=[c[0] for c in TABLE]
)
def test_bad_input_is_told_in_one_line(
    command: str, words: str, bad: Path, world: Path, model: Path, index_path: Path, xmodal_cli: Run
) -> None:
    places = {"t": bad, "world": world, "model": model, "index": index_path, "small": SMALL}
    told = xmodal_cli(*shlex.split(command.format(**places)))
    mistake = told.mistake(ANNOUNCED)
    assert re.search(words, mistake), mistake
