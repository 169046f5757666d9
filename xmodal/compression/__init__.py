"""Binary codes of single vectors: the compressor, and checked matrices of vectors."""
