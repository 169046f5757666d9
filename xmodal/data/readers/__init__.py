"""Readers of folders and tables, one file a format; ``read.read`` chooses by the path."""
