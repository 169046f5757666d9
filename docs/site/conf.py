"""Settings of Sphinx for the documentation site: make site.

Pages are the Markdown files of the repository where they are, so that links between them are the
same on the site and in a checkout. Nothing is loaded from other hosts, at build time or by readers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugin")]

project = "xmodal"
author = "The xmodal authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
]
root_doc = "docs/site/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "docs/*/*.md",
    "plugin/**/README.md",
    "plugin/README.md",
    "benchmarks/*.md",
    "benchmarks/*/*.md",
]
exclude_patterns = ["build", "**/.venv", "deploy"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

html_theme = "furo"
html_title = "xmodal"
smartquotes = False
html_show_sphinx = False
pygments_dark_style = "monokai"
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
suppress_warnings = ["toc.not_included"]  # tables of benchmarks/, which pages link to
python_maximum_signature_line_length = 80
add_module_names = False


def setup(app: Any) -> None:
    """Show help texts of commands as they are: they are no markup."""
    app.connect("sphinx-click-process-description", escape)
    app.connect("sphinx-click-process-options", escape_help)
    app.connect("build-finished", count_blocks)


def escape(_app: Any, _context: Any, lines: list[str]) -> None:
    """Escape what would be markup, in place."""
    lines[:] = [re.sub(r"([*_`|])", r"\\\1", line) for line in lines]


def escape_help(app: Any, context: Any, lines: list[str]) -> None:
    """Escape what would be markup in the lines that describe an option, in place."""
    for place, line in enumerate(lines):
        if line.startswith("   ") and not line.lstrip().startswith(":"):
            escape(app, context, one := [line])
            lines[place] = one[0]


def count_blocks(_app: Any, _error: Exception | None) -> None:
    """Print how many blocks of code tests/project executes."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [re.findall(r"(?m)^```(bash|python)$", page.read_text()) for page in pages]
    number, with_blocks = sum(map(len, found)), sum(map(bool, found))
    print(f"{number} blocks of code on {with_blocks} pages, executed by tests/project")
