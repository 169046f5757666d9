"""The server plugin opensearch-hamming: its Java sources, its build, a check on a server."""
