"""Files of the sdist and the wheel in ``dist``, compared with those that git tracks."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = ("PKG-INFO", "setup.cfg", "xmodal.egg-info/")
"""Files that the build adds to an sdist."""
PACKAGES = ("xmodal/", "plugin/xmodal_opensearch/")
JAVA = "plugin/xmodal_opensearch/server_plugin/java/"
"""Folder of the server plugin; the wheel has its sources and its descriptor alone."""


def tracked() -> set[str]:
    """Return the paths of the files that git tracks and that exist."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}


def sdist_content(sdist: Path) -> dict[str, bytes]:
    """Return the files of an sdist without its first folder and without those of the build."""
    content = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if (file := archive.extractfile(member)) and not name.startswith(MADE):
                content[name] = file.read()
    return content


def wheel_content(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel; metadata are below ``dist-info/``."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            "dist-info/" + name.partition("/")[2] if ".dist-info/" in name else name: content
            for name in archive.namelist()
            for content in [archive.read(name)]
        }


def installed(name: str) -> bool:
    """Return whether the wheel has a tracked file."""
    if not name.startswith(JAVA):
        return name.startswith(PACKAGES)
    is_source = name.startswith(f"{JAVA}src/main/") and name.endswith(".java")
    return is_source or (name.startswith(JAVA) and name.endswith(".properties"))


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return the names of files that one of two archives lacks, or that have other bytes."""
    return sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )


def check_files(dist: Path) -> None:
    """Compare the sdist, the wheel that was built from it, and a wheel that is built here."""
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    names = tracked()
    sources = {name: (ROOT / name).read_bytes() for name in names}
    wrong = differences(sdist_content(sdist), sources)
    assert not wrong, f"the sdist and the checkout differ: {wrong}"
    packages = {
        name.removeprefix("plugin/"): content
        for name, content in sources.items()
        if installed(name)
    }
    from_sdist = wheel_content(wheel)
    code = {name: one for name, one in from_sdist.items() if not name.startswith("dist-info/")}
    wrong = differences(code, packages)
    assert not wrong, f"the wheel and the checkout differ: {wrong}"
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as folder:
        build = [uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT]
        subprocess.run(build, check=True)
        (direct,) = Path(folder).glob("*.whl")
        assert direct.name == wheel.name, (direct.name, wheel.name)
        wrong = differences(from_sdist, wheel_content(direct))
    assert not wrong, f"the wheels from the sdist and from the checkout differ: {wrong}"
    print(f"wheel: {len(sources)} files of the checkout are in the sdist, {len(code)} in the wheel")
