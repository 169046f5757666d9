"""Encoders: towers and backbones that turn pictures and texts into codes."""
