"""Contrast between pictures and their captions: the default where captions decide."""
