"""Importing this module imports what targets need, as child.py does, for processes that fork."""

from __future__ import annotations

import importlib

import atheris

with atheris.instrument_imports(include=["xmodal"]):
    for module in ("fuzz.targets", "xmodal.encoders.torch_encoder", "scipy.io"):
        importlib.import_module(module)
