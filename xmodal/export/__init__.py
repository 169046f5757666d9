"""Export of a trained encoder as ONNX graphs; see :mod:`xmodal.export.export`."""

from xmodal.export.export import Check, export, write_portable

__all__ = ["Check", "export", "write_portable"]
