"""Installs each extra of the wheel in ``dist`` into an empty environment and runs its example.

python tests/project/extras_job.py dist [--cheap] [EXTRA ...]

The examples use the wheel alone: their working folder is empty, and the checkout is not on the
path. ``--cheap`` runs the extras of CHEAP, as CI does. One line is printed for each extra.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Example(NamedTuple):
    """A program that uses an extra, and other extras without which it has nothing to do."""

    program: str
    beside: tuple[str, ...] = ()


PICTURES = """
from pathlib import Path
import subprocess, sys, xmodal
from xmodal.data.synthetic import write_synthetic_data
photos = write_synthetic_data(Path("photos"), 40)
def run(*words):
    command = Path(sys.executable).with_name("xmodal")
    done = subprocess.run([command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
"""
TRAINED = f"""{PICTURES}
small = ["--image-backbone", "small-cnn", "--text-backbone", "words", "--set", "epochs=1"]
run("train", "photos", "--out", "m", "--bits", "32", *small)
run("index", "photos", "--model", "m", "--index", "i")
assert "red" in run("search", "red", "--model", "m", "--index", "i")
"""
EXPORTED = f"{TRAINED}\nrun('export', '--model', 'm', '--onnx', 'x.onnx')\n"
EXAMPLES = {
    "": Example(
        "import xmodal; i = xmodal.open_index('i', bits=64, create=True);"
        "i.add(['a'], image=xmodal.BinaryCodes.from_hex(['00' * 8])); i.close();"
        "assert len(xmodal.open_index('i')) == 1"
    ),
    "torch": Example(TRAINED),
    "opensearch": Example(
        """
import xmodal
try:
    xmodal.open_index("opensearch://localhost:1/x")
except xmodal.XmodalError as error:
    assert "no server answers" in str(error), error
else:
    raise AssertionError("a server answers on port 1")
"""
    ),
    "aws": Example(
        "import boto3, opensearchpy; from botocore.auth import SigV4Auth;"
        "from xmodal_opensearch.client.address import parse_address;"
        "assert parse_address('opensearch://s.example:443/x?aws=eu-west-1').aws == 'eu-west-1'"
    ),
    "node": Example(
        """
import subprocess, sys
from pathlib import Path
command = [Path(sys.executable).with_name("xmodal-opensearch"), "plugin", "build"]
subprocess.run([*command, "--out", "hamming.zip"], check=True, capture_output=True)
assert Path("hamming.zip").stat().st_size > 10_000
"""
    ),
    "service": Example("import xmodal.service.app, xmodal.service.server"),
    "otel": Example(
        "import xmodal.service.tracing; from opentelemetry.exporter.otlp.proto.http import"
        " trace_exporter; from opentelemetry.sdk.trace import TracerProvider"
    ),
    "mat": Example(
        """
import numpy, scipy.io
from pathlib import Path
from xmodal.data.feature_file import read_feature_file
scipy.io.savemat("f.mat", {"image": numpy.eye(4, 6), "text": numpy.eye(4, 5)})
read = read_feature_file(Path("f.mat"))
assert len(read) == 4 and read.dim("image") == 6
"""
    ),
    "heic": Example(
        """
import pillow_heif
from pathlib import Path
from PIL import Image
from xmodal.data.images import load_image
pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save("a.heic")
assert load_image(Path("a.heic")).size == (64, 48)
"""
    ),
    "open-clip": Example("import open_clip; assert open_clip.list_models()"),
    "pandas": Example(
        """
import pandas
import xmodal

data = xmodal.read(pandas.DataFrame({"id": ["a"], "text": ["a red shoe"]}))
assert len(data) == 1
"""
    ),
    "ray": Example("import ray.data; import xmodal.encoders.cluster"),
    "onnx": Example("import onnxruntime, tokenizers; import xmodal.encoders.onnx_encoder"),
    "sentence-transformers": Example(
        f"""{EXPORTED}
from xmodal.integrations.sentence_transformers import load
assert load("x.onnx").encode(["red"], precision="ubinary").shape == (1, 4)
""",
        beside=("export",),
    ),
    "hub": Example(
        f"{EXPORTED}\nimport huggingface_hub; xmodal.Encoder.from_pretrained('x.onnx')",
        beside=("export",),
    ),
    "langchain": Example(
        f"""{TRAINED}
from xmodal.integrations.langchain import XmodalRetriever
assert XmodalRetriever.open("i", "m").invoke("red")
""",
        beside=("torch",),
    ),
    "llama-index": Example(
        f"""{TRAINED}
from xmodal.integrations.llama_index import XmodalRetriever
assert XmodalRetriever.open("i", "m").retrieve("red")
""",
        beside=("torch",),
    ),
    "haystack": Example(
        f"""{TRAINED}
from xmodal.integrations.haystack import XmodalRetriever
assert XmodalRetriever("i", "m").run(query="red")["documents"]
""",
        beside=("torch",),
    ),
    "mcp": Example("import xmodal.integrations.mcp_server"),
    "docs": Example("import sphinx, myst_parser, furo, sphinx_click, sphinx_copybutton"),
    "export": Example(EXPORTED),
    "browser-tests": Example("import playwright.sync_api, axe_playwright_python"),
}
"""Extras in their order in pyproject.toml, after the package without extras."""
CHEAP = ("mat", "heic")
NOT_TESTED = {"dev": "the environment of the tests"}


def extras() -> list[str]:
    """Return the extras of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return list(project["optional-dependencies"])


def uv(*arguments: object) -> None:
    """Run the uv of the environment that runs this."""
    program = Path(sys.executable).with_name("uv")
    subprocess.run([str(program), *map(str, arguments)], check=True)


def run_example(wheel: Path, extra: str, folder: Path) -> str:
    """Install an extra and run its example; return the result as one line."""
    start, example = time.monotonic(), EXAMPLES[extra]
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    python = folder / "env" / "bin" / "python"
    names = ",".join((extra, *example.beside)).strip(",")
    source = f"{wheel}[{names}]" if names else wheel
    uv("pip", "install", "--quiet", "--python", python, source)
    installed = time.monotonic() - start
    work = folder / "work"
    work.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [str(python), "-I", "-c", example.program],
        cwd=work,
        env={**kept, "HF_HUB_OFFLINE": "1", "XMODAL_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    reason = (done.stderr.strip().splitlines() or [""])[-1]
    result = "passed" if done.returncode == 0 else f"FAILED: {reason}"
    seconds = time.monotonic() - start - installed
    return f"{extra or '(none)'}: {result} (installed in {installed:.0f} s, ran {seconds:.0f} s)"


def main(arguments: list[str]) -> int:
    """Run the examples that are named, or all."""
    (wheel,) = Path(arguments[0]).resolve().glob("*.whl")
    chosen = CHEAP if "--cheap" in arguments else [one for one in arguments[1:] if one in EXAMPLES]
    lines = []
    for extra in chosen or EXAMPLES:
        folder = Path(tempfile.mkdtemp(prefix="xmodal-extra-"))
        try:
            lines.append(run_example(wheel, extra, folder))
        except subprocess.CalledProcessError:
            lines.append(f"{extra}: FAILED: cannot be installed")
        finally:
            shutil.rmtree(folder)
        print(f"extra {lines[-1]}", flush=True)
    failed = sum("FAILED" in line for line in lines)
    print(f"extras: {len(lines) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
