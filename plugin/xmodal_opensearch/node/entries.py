"""Entry of a server version in assets/artifacts.json.

    python -m xmodal_opensearch.node.entries 3.8.0 2.19.6

The program downloads the server, its modules and the plugins that the Maven repository has for each
version, and writes the file with their sizes and sha256. The checksums are those of the first
download: compare them with a second source before the change is committed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xmodal_opensearch.node.artifacts import EVERY_VERSION, artifacts_file, read_artifacts

PLUGINS = "org.opensearch.plugin"
SERVER = "org.opensearch.distribution.integ-test-zip:opensearch"


def make_entry(version: str, content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Download the parts of a version and return its entry of artifacts.json.

    Plugins that the repository does not have are left out. Raises RuntimeError without a server.
    """
    server, path = _download(f"{SERVER}:{version}:zip")
    modules = [
        {**entry, "into": f"modules/{name}"}
        for name in _missing_modules(path, content["modules"])
        for entry in _download_module(name, version)
    ]
    entry = {"server": [server, *modules]}
    for part, rules in content["parts"].items():
        if "maven" not in rules:
            continue
        try:
            files = [f"{PLUGINS}:{rules['maven']}:{version}.0:zip", *rules.get("jars", ())]
            entry[part] = [_download(file)[0] for file in files]
        except RuntimeError:
            print(f"{version} without {part}", file=sys.stderr)
    return entry


def _missing_modules(server: Path, modules: Iterable[str]) -> list[str]:
    """Return the modules that are not in the zip of the server."""
    with zipfile.ZipFile(server) as packed:
        folders = {
            name.split("/modules/")[1].split("/")[0]
            for name in packed.namelist()
            if "/modules/" in name
        }
    return [name for name in modules if name not in folders]


def _download_module(name: str, version: str) -> list[dict[str, Any]]:
    """Download the jars of a module except those of the server; [] if there is no such module."""
    for artifact in (name, f"{name}-client"):
        try:
            jars = _closure(PLUGINS, artifact, version) - _closure(
                "org.opensearch", "opensearch", version
            )
        except RuntimeError:
            continue
        return [_download(jar)[0] for jar in sorted(jars)]
    print(f"{version} without module {name}", file=sys.stderr)
    return []


def _closure(group: str, name: str, version: str) -> set[str]:
    """Return a jar and its dependencies as group:name:version:jar."""
    from jgo.maven import Dependency, MavenContext

    context = MavenContext(timeout=60)
    artifact = context.project(group, name).at_version(version).artifact()
    direct, transitive = context.resolver.resolve([Dependency(artifact)])
    return {f"{d.groupId}:{d.artifactId}:{d.version}:jar" for d in (*direct, *transitive)}


def _download(coordinates: str) -> tuple[dict[str, Any], Path]:
    """Download a file; return its entry and its path. Raises RuntimeError if there is none."""
    from jgo.maven import MavenContext

    group, name, version, packaging = coordinates.split(":")
    project = MavenContext(timeout=60).project(group, name).at_version(version)
    path = Path(project.artifact(packaging=packaging).resolve())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"artifact": coordinates, "size": path.stat().st_size, "sha256": digest}, path


def to_text(content: Mapping[str, Any]) -> str:
    """Return artifacts.json with one line for each artifact, module and rule of a part."""
    lines = []
    for section in ("modules", "parts"):
        entries = [
            f"    {json.dumps(name)}: {json.dumps(content[section][name])}"
            for name in content[section]
        ]
        lines.append(f'  "{section}": {{\n' + ",\n".join(entries) + "\n  }")
    versions = []
    for version in sorted(content["versions"], key=_numbers):
        parts = []
        for part, artifacts in content["versions"][version].items():
            rows = ",\n".join(f"        {json.dumps(artifact)}" for artifact in artifacts)
            parts.append(f"      {json.dumps(part)}: [\n{rows}\n      ]")
        versions.append(f"    {json.dumps(version)}: {{\n" + ",\n".join(parts) + "\n    }")
    lines.append('  "versions": {\n' + ",\n".join(versions) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _numbers(version: str) -> list[int]:
    return [] if version == EVERY_VERSION else [int(part) for part in version.split(".")]


def main(versions: Iterable[str]) -> None:
    """Write the entries of ``versions`` into artifacts.json."""
    content = read_artifacts()
    for version in versions:
        content["versions"][version] = make_entry(version, content)
        artifacts_file().write_text(to_text(content), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
