"""Imports a library that warns with Python 3.14, before the tests import it."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'asyncio.iscoroutinefunction'", DeprecationWarning)
    import langchain_core.retrievers  # noqa: F401
