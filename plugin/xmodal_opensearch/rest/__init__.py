"""Search and storage by REST alone: connector, pipelines, remote model."""
