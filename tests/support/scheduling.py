"""Which test process runs which tests, with pytest-xdist and ``--dist loadfile``."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

OF_NODES = (
    "tests/contract/",
    "tests/integrations/test_retrievers.py",
    "tests/plugin/",
    "tests/project/test_docs.py",
    "tests/project/test_readme.py",
    "tests/service/test_on_opensearch.py",
    "tests/versions/",
)
"""Begins of the names of files whose tests share OpenSearch nodes, which are slow to start."""
NODES = ("node", "plugin_node", "ml_url", "secured")
"""Fixtures of shared nodes."""


def uses_nodes(nodeid: str) -> bool:
    """Whether a test is in a file of OF_NODES."""
    return nodeid.startswith(OF_NODES)


class ByFile(LoadFileScheduling):
    """One process runs all tests of a file, and one process runs all tests of shared nodes.

    ``--dist loadgroup`` distributes each test alone with pytest 9.2 and pytest-xdist 3.8
    (pytest-xdist issue 1386): module fixtures are made in each process.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "nodes" if uses_nodes(nodeid) else str(super()._split_scope(nodeid))
