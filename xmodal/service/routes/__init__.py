"""Request handlers of the HTTP API, by subject."""

from xmodal.service.routes import documents, encoding, operations, search

ROUTERS = (search.router, encoding.router, documents.router, operations.router)
