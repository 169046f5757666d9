"""SCH-GAN: the generator selects candidates (arXiv 1802.02488)."""
