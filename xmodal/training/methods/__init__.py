"""Training methods: one folder each, with ``config``, ``networks``, ``losses`` and ``train``."""
