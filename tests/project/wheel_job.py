"""Checks the wheel in an empty environment: packages, assets, commands, entry points.

A portable model that is exported here is used there, without torch.

python tests/project/wheel_job.py dist
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of ``support``
from support.dist_files import check_files

CHECK = """
from importlib.metadata import entry_points
from importlib.resources import files
import sys, xmodal
assert "torch" not in sys.modules and "llvmlite" not in sys.modules, "import xmodal loads too much"
assert files("xmodal").joinpath("py.typed").is_file(), "py.typed is missing"
assets = files("xmodal_opensearch").joinpath("assets")
for name in ("hamming.painless", "artifacts.json", "compose.yaml"):
    assert assets.joinpath(name).is_file(), f"{name} is missing"
service = files("xmodal").joinpath("service")
for name in ("page/index.html", "page/page.css", "page/page.js", "page/texts.js", "page/icon.svg"):
    assert service.joinpath(name).is_file(), f"service/{name} is missing"
java = files("xmodal_opensearch.server_plugin").joinpath("java")
assert java.joinpath("plugin-descriptor.properties").is_file(), "the plugin's descriptor is missing"
query = "src/main/java/org/xmodal/hamming/HammingQuery.java"
assert java.joinpath(query).is_file(), "the plugin's sources are missing"
for folder in ("lucene9", "lucene10"):
    assert java.joinpath("src/main", folder).is_dir(), f"the plugin's {folder} is missing"
assert not java.joinpath("src/test").exists(), "the wheel has the plugin's tests"
names = {entry.name: entry for entry in entry_points(group="xmodal.indexes")}
assert names["file"].load().__module__ == "xmodal.index.local", names
assert names["opensearch"].value == "xmodal_opensearch.index.store:open_opensearch", names
index = xmodal.open_index(sys.argv[1], bits=64, create=True)
index.add(["a"], image=xmodal.BinaryCodes.from_hex(["00" * 8]))
index.close()
assert len(xmodal.open_index(sys.argv[1])) == 1
print("wheel: imports, entry points, assets and the local index work without torch")
"""


def portable(wheel: str, install: list[str], folder: Path) -> None:
    """Encode, index, search and serve with a portable model where torch is not installed."""
    from support.exported import exported, untrained

    from xmodal.data.synthetic import write_synthetic_data

    trained = untrained("small-cnn", "words")
    exported(trained, folder)
    photos_folder = write_synthetic_data(folder / "photos_folder", 40)
    subprocess.run([*install, wheel], check=True)
    bin_folder = folder / "env" / "bin"
    absent = subprocess.run(
        [bin_folder / "python", "-c", "import torch"], cwd=folder, capture_output=True
    )
    assert b"ModuleNotFoundError" in absent.stderr, absent

    def xmodal(*arguments: object) -> str:
        command = [bin_folder / "xmodal", *map(str, arguments), "--model", "x.onnx"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    picture = photos_folder / "00003.png"
    codes = xmodal("encode", "--text", "a red circle", "--image", picture).split()
    expected = [trained.encode_texts(["a red circle"]), trained.encode_images([picture])]
    assert codes == [one.to_hex()[0] for one in expected], (codes, expected)
    assert "40 documents" in xmodal("index", photos_folder, "--index", "portable.index")
    found = xmodal("search", "a red circle", "--index", "portable.index", "-k", 3, "--json")
    assert len(json.loads(found)["hits"]) == 3, found
    line = [bin_folder / "xmodal", "serve", "--model", "x.onnx", "--index", "portable.index"]
    with subprocess.Popen(
        [*line, "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as service:
        assert service.stderr is not None
        ready = next(line for line in service.stderr if line.startswith("listening on "))
        request = Request(
            f"{ready.split()[-1]}/v1/search",
            b'{"text": "a red circle", "k": 3}',
            {"Content-Type": "application/json"},
        )
        with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
            served = json.load(response)
        service.terminate()
    assert [hit["id"] for hit in served["hits"]] == [hit["id"] for hit in json.loads(found)["hits"]]
    print("wheel: without torch, a portable model encodes, indexes, searches and serves")


def run_install_hint(
    refused: subprocess.CompletedProcess[bytes],
    extra: str,
    environment: dict[str, str],
    folder: str,
) -> None:
    """Run the installation command at the end of an error message, in the same folder."""
    command = refused.stderr.decode().rpartition(": ")[2].strip()
    assert command.startswith("uv pip install ") and f"[{extra}]" in command, refused.stderr
    subprocess.run(f"{command} --quiet", shell=True, check=True, env=environment, cwd=folder)


def main(dist: str) -> None:
    """Install the wheel in ``dist`` into a new environment and check it."""
    (wheel,) = Path(dist).glob("*.whl")
    check_files(Path(dist))
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder, "env", "bin", "python"))
        make = [uv, "venv", "--quiet", "--python", sys.executable, f"{folder}/env"]
        subprocess.run(make, check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python, str(wheel.resolve())]
        subprocess.run(install, check=True)
        subprocess.run([python, "-c", CHECK, f"{folder}/index"], check=True, cwd=folder)
        bin_folder = Path(folder, "env", "bin")
        doctor = [str(bin_folder / "xmodal-opensearch"), "doctor", "opensearch://localhost:1/x"]
        # The environment has no pip, so the message names uv, which its user has on PATH.
        with_uv = os.environ | {"PATH": f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}"}
        refused = subprocess.run(doctor, cwd=folder, capture_output=True, env=with_uv)
        assert refused.returncode == 2, refused
        run_install_hint(refused, "opensearch", with_uv, folder)
        again = subprocess.run(doctor, cwd=folder, capture_output=True)
        assert b"no server answers" in again.stderr, again.stderr
        xmodal = str(Path(folder, "env", "bin", "xmodal"))
        shown = subprocess.run([xmodal, "--help"], check=True, cwd=folder, capture_output=True)
        assert b"search" in shown.stdout
        Path(folder, "m").mkdir()
        Path(folder, "m", "config.json").write_text("{}")
        missing = subprocess.run(
            [xmodal, "search", "x", "--model", "m", "--index", "i"], cwd=folder, capture_output=True
        )
        assert missing.returncode == 2, missing
        assert b"[torch]'" in missing.stderr, missing.stderr
        portable(f"{wheel.resolve()}[onnx,service]", install[:-1], Path(folder))
        # The server plugin is built from the sources in the wheel.
        subprocess.run([*install[:-1], f"{wheel.resolve()}[node]"], check=True)
        build = [str(bin_folder / "xmodal-opensearch"), "plugin", "build", "--out", "hamming.zip"]
        built = subprocess.run(build, check=True, cwd=folder, capture_output=True)
        digest = hashlib.sha256(Path(folder, "hamming.zip").read_bytes()).hexdigest()
        assert digest.encode() in built.stdout, built
        print(f"wheel: builds the server's plugin, sha256 {digest}")


if __name__ == "__main__":
    main(sys.argv[1])
