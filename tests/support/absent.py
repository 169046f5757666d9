"""xmodal in a process in which some packages cannot be imported."""

from __future__ import annotations

import os
import sys

PROGRAM = """
import sys
for name in {absent}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from xmodal.cli import main
main()
"""
TORCH = ("torch", "torchvision", "transformers", "safetensors", "onnx", "onnxscript")


def command(absent: tuple[str, ...], *arguments: object) -> list[str]:
    """The command line of ``xmodal`` without the packages ``absent``."""
    return [sys.executable, "-c", PROGRAM.format(absent=absent), *map(str, arguments)]


def environment() -> dict[str, str]:
    """Ours, with the same packages to be found."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
