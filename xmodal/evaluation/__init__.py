"""Metrics under ties, protocols, baselines and reports."""
