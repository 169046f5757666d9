"""Backbone features of pictures and texts, and their cache."""
