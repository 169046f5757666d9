"""Items, captions and labels: readers, splits, decoding of pictures, synthetic data."""
