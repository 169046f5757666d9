"""Export of a trained encoder as ONNX graphs; see :mod:`xmodal.exporting.export`."""

from xmodal.exporting.export import Check, export

__all__ = ["Check", "export"]
