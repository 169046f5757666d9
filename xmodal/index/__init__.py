"""The index contract, filters, documents, and the local index."""
