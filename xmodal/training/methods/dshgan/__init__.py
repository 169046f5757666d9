"""DSH-GANs: the generator makes labelled pairs (arXiv 1804.08275)."""
