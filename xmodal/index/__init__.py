"""The contract of an index, filters, documents, and the local index."""
