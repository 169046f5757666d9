"""A development node of OpenSearch from packages."""
