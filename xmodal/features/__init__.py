"""Backbones, features of pictures and texts, and the feature cache."""
