"""Multi-adversarial semantic hashing: critics of inputs and codes (CIKM 2018)."""
