"""Segments of a local index: immutable files of columns, read where they are used."""
