"""Commands of xmodal in a process in which some packages cannot be imported."""

from __future__ import annotations

import os
import sys

PROGRAM = """
import sys
for name in {absent}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from {cli} import main
main()
"""
TORCH = ("torch", "torchvision", "transformers", "onnx", "onnxscript")


def command(absent: tuple[str, ...], *arguments: object, cli: str = "xmodal.cli") -> list[str]:
    """Return the command line that runs the ``main`` of ``cli`` without the packages ``absent``."""
    program = PROGRAM.format(absent=absent, cli=cli)
    return [sys.executable, "-c", program, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return this process's environment, with its import path in PYTHONPATH."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
