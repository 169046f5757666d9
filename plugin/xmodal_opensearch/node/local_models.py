"""Models inside a development node: native libraries of ml-commons from the Maven repository.

ml-commons runs a model with DJL, which downloads PyTorch at the first model, and the node's copy of
the plugin has no ONNX Runtime. This module adds both, so that ``connect --in-cluster`` needs no
network. DJL 0.31.1 looks for the JNI library with its own version in the file name; the repository
has that of 0.32.0, which is compatible and is renamed.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from xmodal.errors import ConfigError
from xmodal_opensearch.node.artifacts import Show, part_folder

ML = "opensearch-ml"
SETTINGS = {
    "plugins.ml_commons.only_run_on_ml_node": "false",
    "plugins.ml_commons.allow_registering_model_via_local_file": "true",
    # The limit counts the page cache of the system as used memory.
    "plugins.ml_commons.native_memory_threshold": "100",
}


def check(version: str, plugins: Iterable[str]) -> None:
    """Raise ConfigError without ml-commons, and for versions and platforms without libraries."""
    if ML not in plugins:
        raise ConfigError(f"local models need the plugin {ML}: add --with-ml")
    if version.startswith("2."):
        raise ConfigError(
            f"local models need OpenSearch 3.0 or later, this is {version}: use another version, "
            "or connect --service"
        )
    system, machine = sys.platform, platform.machine()
    if (system, machine.lower()) not in (("linux", "x86_64"), ("linux", "amd64")):
        raise ConfigError(
            f"local models need Linux on x86-64, this is {system} on {machine}, for which the "
            "Maven repository has no PyTorch 2.5.1: use connect --service"
        )


def add_onnxruntime(plugin: Path, version: str, show: Show | None) -> None:
    """Replace ``plugin``, a link to unpacked ml-commons, by a folder that has ONNX Runtime, too.

    Raises IndexFailure (see ``part_folder``) and OSError.
    """
    sources = plugin.resolve(), part_folder("onnxruntime", version, show)
    plugin.unlink()
    plugin.mkdir()
    for source in sources:
        for path in source.iterdir():
            (plugin / path.name).symlink_to(path)


def java_flag(version: str, show: Show | None) -> str:
    """Return the Java option with the folder of PyTorch. Raises IndexFailure."""
    return f"-DPYTORCH_LIBRARY_PATH={part_folder('pytorch', version, show)}"
