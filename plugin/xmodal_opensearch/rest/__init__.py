"""Encoding on the server side: ml-commons connector and model, ingest and search pipelines."""
