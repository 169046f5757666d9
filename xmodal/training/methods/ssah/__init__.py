"""SSAH: the adversary makes hard samples (arXiv 1911.08688)."""
