"""All checks of ``doctor``, and the safe repairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import cluster_checks, connect_checks, index_checks
from xmodal_opensearch.diagnostics.findings import Finding, Subject

CHECKS: dict[str, Callable[[Subject], Iterator[Finding]]] = {
    "self-test document": index_checks.check_self_test,
    "settings": index_checks.check_settings,
    "default pipelines": index_checks.check_pipelines,
    "mapping": index_checks.check_mapping,
    "documents": index_checks.check_documents,
    "versions": index_checks.check_versions,
    "pipelines of connect": connect_checks.check_connect,
    "shards": cluster_checks.check_health,
    "disks": cluster_checks.check_disk,
    "cluster settings": cluster_checks.check_limits,
    "memory of the hamming plugin": cluster_checks.check_plugin,
}
"""Checks by title, in the order of the repairs."""
NOT_OFFERED = (400, 404, 405, 410)
"""Statuses of requests that a server, such as a managed one, does not offer."""


@dataclass
class Inspection:
    """Findings, and the checks that were not possible, one line each."""

    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong."""
        return any(finding.is_wrong for finding in self.findings)


def inspect(server: Server, address: Address) -> Inspection:
    """Run all checks of the indexes behind an address.

    A check for which the user lacks a permission is skipped, and listed. Raises IndexMissing if
    there is neither an index nor a version of this name, and ServerFailure.
    """
    try:
        indexes = server.request(
            "GET", f"/{address.index}", doing=f"opening {address.index}", flat_settings="true"
        )
    except IndexMissing:
        indexes = {}
    subject = Subject(server, address, indexes)
    result = Inspection()
    for title, check in CHECKS.items():
        if not indexes and check is not index_checks.check_versions:
            continue
        try:
            result.findings += check(subject)
        except ServerFailure as error:
            if error.status in (401, 403):
                lacking = error.permission and f"this user lacks {error.permission}"
                result.not_checked.append(f"{title}: {lacking or error.reason}")
            elif error.status in NOT_OFFERED:
                result.not_checked.append(f"{title}: the server refuses this request")
            else:
                raise
        except IndexFailure as error:  # such as an index that is deleted meanwhile
            result.not_checked.append(f"{title}: {error}")
    if not indexes and not result.findings:
        raise IndexMissing(f"no index {address.index} at {address.server}")
    return result


def repair(inspection: Inspection) -> list[str]:
    """Apply the safe repairs; return one line for each."""
    lines = []
    for finding in inspection.findings:
        if finding.fix is not None:
            finding.fix()
            lines.append(f"repaired: {finding.found}")
    return lines
