"""The hamming query inside the server: its Java sources, how they are compiled, a check."""
