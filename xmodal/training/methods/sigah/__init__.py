"""SiGAH: unsupervised codes by an adversarial decoder (arXiv 2306.06928)."""
