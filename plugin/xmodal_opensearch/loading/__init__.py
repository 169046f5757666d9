"""Bulk operations on an index: load, enrich, new versions."""
