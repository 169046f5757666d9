"""Reports in Markdown with machine and versions: printed, and written to benchmarks/results/."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
PACKAGES = (
    "xmodal",
    "numpy",
    "llvmlite",
    "faiss-cpu",
    "opensearch-py",
    "torch",
    "torchvision",
    "transformers",
    "onnxruntime",
)


def machine() -> str:
    """Processor, number of cores and current load."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def versions() -> str:
    """Versions of Python and of the packages that affect results."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join([f"python {platform.python_version()}", *found])


def write(
    name: str, title: str, command: str, sections: Sequence[tuple[str, str]], *, keep: bool = True
) -> None:
    """Print sections (heading, Markdown); with ``keep``, write them to results/NAME.md."""
    parts = [f"# {title}", "", f"`{command}`", "", f"{machine()}; {versions()}", ""]
    for heading, body in sections:
        parts += [f"## {heading}", "", body, ""]
    text = "\n".join(parts)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text)
    print(text)


def table(rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first row is the header."""
    header, *body = [[str(cell) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
