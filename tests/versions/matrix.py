"""Runs the contract suite on each server version and prints the table "what works where".

    python tests/versions/matrix.py                     all versions and tests, an hour
    python tests/versions/matrix.py --quick             QUICK tests on the oldest and newest version
    python tests/versions/matrix.py 3.4.0 3.5.0         these versions

One node after another is started, with the plugins that the version has. The exit status is 1 if a
test failed. A cell of the table is "yes" if all tests of the feature passed, "-" if all were
skipped, because the version has no such plugin, else the number of failures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from xmodal_opensearch.node.artifacts import KNN, known_versions, read_parts
from xmodal_opensearch.node.java import needs_old_java

ROOT = Path(__file__).parents[2]
STRATEGIES = ("hamming", "script", "knn", "lucene-hnsw", "long")
FEATURES = (*STRATEGIES, "two stages", "plugin", "connect")
TESTS = ("tests/contract", "tests/versions")
CONNECT_TESTS = "tests/plugin/rest/test_connect_documents.py"

# Several codes a document, ties, radius, filters, deletes, stored documents, weights and vectors:
# one index each, and no random cases.
QUICK = " or ".join(
    (
        "(test_documents_of_no_one_two_and_many and not 136)",
        "test_mixed_batch_round_trip",
        "test_reopened_index_is_equal",
        "(test_weights_and_vectors and several and both)",
        "test_server_version",
    )
)


@dataclass
class Results:
    """Outcome of the tests on one server version."""

    version: str
    seconds: float = 0.0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Numbers of passed, skipped and failed tests of each feature."""
    failed: list[str] = field(default_factory=list)

    def cell(self, feature: str) -> str:
        """Return the content of a cell of the table."""
        counts = self.counts[feature]
        if counts["failed"]:
            return f"**{counts['failed']} failed**"
        return "yes" if counts["passed"] else "-"


def run_tests(version: str, selection: str) -> Results:
    """Run the selected tests on a node of one version in a process of their own."""
    began = time.monotonic()
    has_ml = "opensearch-ml" in read_parts(version) and not selection
    selected = f"({selection}) and not local" if selection else "not local"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--server", version, f"--junitxml={report}"),
            *("-o", "junit_family=xunit1", "-p", "no:cacheprovider", "--durations=5"),
            *("-k", selected),
            *TESTS,
            *([CONNECT_TESTS] if has_ml else []),
        ]
        done = subprocess.run(command, cwd=ROOT, check=False)
        results = Results(version, time.monotonic() - began)
        if report.exists():
            read_report(report, results)
    if done.returncode and not results.failed:
        results.failed.append(f"pytest ended with status {done.returncode}")
    return results


def read_report(report: Path, results: Results) -> None:
    """Add the outcomes of a JUnit report to ``results``."""
    for case in ElementTree.parse(report).iter("testcase"):
        children = {child.tag for child in case}
        outcome = "skipped" if "skipped" in children else "passed"
        name = f"{case.get('classname')}::{case.get('name')}"
        if children & {"failure", "error"}:
            outcome = "failed"
            results.failed.append(name)
        properties = {p.get("name"): str(p.get("value")) for p in case.iter("property")}
        features = [properties.get("feature", "")]
        if "test_ranking" in name:
            features.append("two stages")
        if "test_connect" in name:
            features.append("connect")
        for feature in filter(None, features):
            results.counts[feature][outcome] += 1


def table(results: list[Results]) -> str:
    """Return the table in Markdown."""
    names = ("OpenSearch", "Java", "k-NN", "security", *FEATURES, "tests", "seconds")
    rows = [names, ["---"] * len(names)]
    for one in results:
        parts = read_parts(one.version)
        rows.append(
            [
                one.version,
                "17" if needs_old_java(one.version) else "21 or later",
                "yes" if KNN in parts else "-",
                "yes" if "opensearch-security" in parts else "-",
                *map(one.cell, FEATURES),
                str(sum(counts["passed"] for counts in one.counts.values())),
                f"{one.seconds:.0f}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("versions", nargs="*", help="default: all, or the oldest and newest")
    parser.add_argument("--quick", action="store_true", help="tests of QUICK only")
    parser.add_argument("--select", default="", help="tests of an expression as in pytest -k")
    arguments = parser.parse_args()
    selection = QUICK if arguments.quick else arguments.select
    known = known_versions()
    versions = arguments.versions or ([known[0], known[-1]] if arguments.quick else known)
    if unknown := set(versions) - set(known):
        parser.error(f"version is {', '.join(sorted(unknown))}, expected {', '.join(known)}")
    results = []
    for version in versions:
        print(f"OpenSearch {version}", flush=True)
        results.append(run_tests(version, selection))
    print(table(results))
    for one in results:
        for name in one.failed:
            print(f"failed on {one.version}: {name}", file=sys.stderr)
    return int(any(one.failed for one in results))


if __name__ == "__main__":
    sys.exit(main())
