"""Development node: an OpenSearch server that is downloaded, started and stopped by Python."""
