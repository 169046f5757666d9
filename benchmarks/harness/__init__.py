"""Shared modules of the benchmark programs."""
