"""Readers of folders and tables, one file a format."""
