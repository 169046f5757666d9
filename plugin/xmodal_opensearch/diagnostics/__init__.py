"""``xmodal-opensearch doctor``: findings about an index and its cluster, and measurements."""
