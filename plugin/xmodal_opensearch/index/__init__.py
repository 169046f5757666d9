"""Implementation of the index contract on OpenSearch: mapping, queries, search, aliases."""
