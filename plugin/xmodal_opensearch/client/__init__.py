"""HTTP client of an OpenSearch server: address, requests, bulk, retries, errors."""
