"""Items, captions and labels: reading, splitting, decoding pictures, synthetic data."""
