"""The files in deploy/ pass their linters and fit the service; building them needs a daemon."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.service_process import Running, running

from xmodal.encoders.encoder import Encoder

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
COMPOSE = [
    DEPLOY / "compose.yaml",
    *sorted((ROOT / "plugin" / "xmodal_opensearch" / "assets").glob("compose*.yaml")),
]
Document = dict[str, Any]


def lint(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    lint(Path(sys.executable).with_name("hadolint"), path)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_fit_their_schema(path: Path) -> None:
    lint(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles_name_existing_files_and_extras(path: Path) -> None:
    text = path.read_text()
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists() and f"!{name}" in ignored, name
    (extras,) = re.findall(r"ARG EXTRAS=(\S+)|\"\.\[([a-z,]+)\]\"", text)
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in declared for extra in "".join(extras).split(","))
    for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":(\d+\.\d+|\$)", image), f"{image} has no tag with a version"


def parse_serve(*arguments: str) -> None:
    """Parse the command line of ``xmodal serve``. Raises the usage error of an unknown option."""
    from xmodal.cli.serve import serve

    serve.make_context("serve", list(arguments))


def entry_point() -> list[str]:
    text = (DEPLOY / "service.Dockerfile").read_text()
    entry = re.search(r"^ENTRYPOINT (\[.*\])", text, re.MULTILINE)
    assert entry is not None
    words: list[str] = json.loads(entry[1])
    assert words[:2] == ["xmodal", "serve"]
    return words[2:]


def test_the_service_accepts_the_options_of_the_files(kubernetes: dict[str, Document]) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    text = (DEPLOY / "service.Dockerfile").read_text()
    command = re.search(r"^CMD (\[.*\])", text, re.MULTILINE)
    assert command is not None
    for more in (json.loads(command[1]), compose["services"]["service"]["command"], pod["args"]):
        parse_serve(*entry_point(), *more)


def test_commands_of_the_compose_file(opensearch_commands: Any) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    connect = services["connect"]
    name, *more = [*connect["entrypoint"], *connect["command"]][1:]
    token = more.index("--token-file") + 1
    more[token] = __file__  # the option requires an existing file
    opensearch_commands[name].make_context(name, more)
    assert len(services["create"]["entrypoint"]) == 3
    for line in services["create"]["entrypoint"][2].split(" || "):
        program, name, *more = shlex.split(line.replace("$$XMODAL_INDEX", "opensearch://a/b"))
        assert program in ("xmodal", "xmodal-opensearch")
        if program == "xmodal-opensearch":
            opensearch_commands[name].make_context(name, more)


@pytest.fixture
def opensearch_commands() -> Any:
    from xmodal_opensearch.cli.commands import commands

    return {name: commands.get_command(None, name) for name in ("connect", "create")}


def test_compose_services_are_limited_and_local() -> None:
    for path in COMPOSE:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            ports = service.get("ports", ())
            assert all(port.startswith("127.0.0.1:") for port in ports), (path, name)
            assert path.parent != DEPLOY or {"mem_limit", "cap_drop"} <= set(service), name
    text = (DEPLOY / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        secrets = set(service["secrets"])
        assert secrets >= {one for one in re.findall(r"/run/secrets/(\w+)", json.dumps(service))}, (
            name
        )
        for condition in service.get("depends_on", {}):
            assert condition in services


# ---- Kubernetes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """The resources by kind, as kustomize prints them, or the files without kubectl."""
    folder = tmp_path_factory.mktemp("deploy") / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", folder)
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if shutil.which("kubectl") is None:
        files = [folder / name for name in settings["resources"]]
        return {one["kind"]: one for path in files for one in documents(path.read_text())}
    for generator in (*settings["secretGenerator"], *settings["configMapGenerator"]):
        for name in generator.get("files", ()):
            (folder / name.rpartition("=")[2]).write_text("content of a test")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {one["kind"]: one for one in documents(done.stdout)}


def documents(text: str) -> Iterator[Document]:
    yield from yaml.safe_load_all(text)


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_manifests_fit_their_schemas(kubernetes: dict[str, Document], version: str) -> None:
    import kubernetes_validate

    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= set(kubernetes)
    for resource in kubernetes.values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_pods_are_restricted_and_selected(kubernetes: dict[str, Document]) -> None:
    template = kubernetes["Deployment"]["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    secrets = [one["secret"] for one in pod["volumes"] if "secret" in one]
    assert [one["defaultMode"] for one in secrets] == [0o440]
    if "metadata" in template and "labels" in template["metadata"]:  # set by kustomize
        labels = template["metadata"]["labels"].items()
        assert kubernetes["Service"]["spec"]["selector"].items() <= labels
        selector = kubernetes["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels


def test_probes_are_answered(kubernetes: dict[str, Document], service: Running) -> None:
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        answer = service.client.get(pod[name]["httpGet"]["path"], headers={"host": "10.1.2.3:8080"})
        assert answer.status_code == 200, name
    (path,) = re.findall(r":8080(/\S+)'", (DEPLOY / "service.Dockerfile").read_text())
    assert service.get(path).status_code == 200


# ---- monitoring ----------------------------------------------------------------------------------


def expressions() -> list[str]:
    """All PromQL expressions of the dashboard and of the alert rules."""
    dashboard = json.loads((DEPLOY / "monitoring" / "grafana.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())
    found += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return [
        text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
        for text in found
    ]


def test_expressions_use_metrics_and_labels_of_the_service(
    encoder: Encoder, index_path: Path
) -> None:
    with running(encoder, index_path, hosts=("127.0.0.1",)) as service:
        service.post("/v1/search", {"text": "a red circle"})
        service.client.get("/v1/about", headers={"host": "elsewhere"})  # counted as refused
        text = service.client.get("/metrics").text
    samples = re.findall(r"^(xmodal_\w+)(?:\{(.*?)\})? ", text, re.MULTILINE)
    labels: dict[str, set[str]] = {}
    for name, pairs in samples:
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', pairs))
    added = {"job", "instance"}  # by Prometheus
    for expression in expressions():
        names = re.findall(r"\b(xmodal_\w+)(?:\{(.*?)\})?", expression)
        assert names or "up{" in expression, expression
        for name, pairs in names:
            assert name in labels, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)=~?\"", pairs)) <= labels[name] | added, expression
        grouped = re.findall(r"by \((.*?)\)", expression)
        known = added.union(*(labels[name] for name, _ in names))
        assert {one.strip() for group in grouped for one in group.split(",")} <= known, expression


def test_expressions_are_promql(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("checks PromQL with promtool: apt-get install prometheus")
    rules = [{"record": f"a:{n}", "expr": text} for n, text in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "a", "rules": rules}]}))
    lint("promtool", "check", "rules", tmp_path / "rules.yaml", DEPLOY / "monitoring/alerts.yaml")


def test_scrape_configuration_names_the_rules() -> None:
    settings = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yaml").read_text())
    assert all((DEPLOY / "monitoring" / name).is_file() for name in settings["rule_files"])
    (job,) = settings["scrape_configs"]
    assert job["job_name"] == "xmodal" and job["metrics_path"] == "/metrics"
