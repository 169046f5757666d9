"""Filling an index: load, enrich, new versions."""
