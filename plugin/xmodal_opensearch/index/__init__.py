"""Index contract on OpenSearch: mapping, queries, search, aliases."""
