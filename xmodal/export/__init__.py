"""Export of a trained encoder as ONNX graphs; see :mod:`xmodal.export.export`."""

from xmodal.export.export import Check, export

__all__ = ["Check", "export"]
