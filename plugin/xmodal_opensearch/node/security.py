"""Security plugin of a development node: certificates, demo users, configuration.

At the first start ``prepare`` makes in the folder ``security/`` of the node

    ca.pem           the node's certificate, for ``?ca=`` of an address
    password         password of the demo users, for XMODAL_OPENSEARCH_PASSWORD_FILE
    node.p12         key and certificate of the node
    trust.p12        the certificate again, for connections between nodes
    users.yml        demo users with the hash of the password

The files are kept for the next start, and only the user who started the node can read them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from xmodal.errors import IndexFailure

PLUGIN = "opensearch-security"
FOLDER, CERTIFICATE, PASSWORD = "security", "ca.pem", "password"
ADMIN = "admin"
DEMO_USERS = {ADMIN: "admin", "reader": "readall"}
"""Names of the users and their backend roles, which the plugin maps to its roles."""

YEARS = 10


def prepare(folder: Path, config: Path, plugin: Path, java: Path, class_path: str) -> None:
    """Make the files of ``folder`` if necessary, and write the configuration to ``config``.

    ``plugin``: the unpacked plugin. ``java``: the Java executable, beside which keytool is.
    ``class_path``: of the server. Raises IndexFailure if keytool or the plugin's hash tool fails,
    OSError.
    """
    if not (folder / "users.yml").is_file():
        _make_files(folder, plugin, java, class_path)
    config.chmod(0o700)
    shutil.copytree(plugin / "config", config / PLUGIN)
    shutil.copyfile(folder / "users.yml", config / PLUGIN / "internal_users.yml")
    for name in ("node.p12", "trust.p12"):
        shutil.copyfile(folder / name, config / name)
    settings = config / "opensearch.yml"
    settings.touch(0o600)
    settings.write_text("".join(_settings(password(folder))), "utf-8")


def password(folder: Path) -> str:
    """Return the password of the demo users and of the key stores."""
    return (folder / PASSWORD).read_text("utf-8")


def _make_files(folder: Path, plugin: Path, java: Path, class_path: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(0o700)
    secret = secrets.token_urlsafe(18)
    (folder / PASSWORD).touch(0o600)
    (folder / PASSWORD).write_text(secret, "utf-8")
    environment = {**os.environ, "XMODAL_SECRET": secret}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=folder
        )
        if done.returncode:
            reason = " ".join((done.stdout + done.stderr).split())[:300]
            raise IndexFailure(f"{Path(command[0]).name} failed: {reason}")
        return done.stdout.strip()

    keytool = java.with_name("keytool")
    stored = ("-storetype", "PKCS12", "-storepass:env", "XMODAL_SECRET")
    run(
        *(keytool, "-genkeypair", "-alias", "node", "-keyalg", "EC", "-groupname", "secp256r1"),
        *("-dname", "CN=node", "-validity", str(365 * YEARS), *stored, "-keystore", "node.p12"),
        *("-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "bc:critical=ca:true"),
        *("-ext", "ku:critical=digitalSignature,keyCertSign"),
    )
    run(
        *(keytool, "-exportcert", "-rfc", "-alias", "node", *stored, "-keystore", "node.p12"),
        *("-file", CERTIFICATE),
    )
    run(
        *(keytool, "-importcert", "-noprompt", "-alias", "node", *stored),
        *("-keystore", "trust.p12", "-file", CERTIFICATE),
    )
    # The password has 144 random bits; more rounds cost each first request of a user 0.3 seconds.
    tool = ("org.opensearch.security.tools.Hasher", "-r", "4", "-env", "XMODAL_SECRET")
    digest = run(java, "-cp", os.pathsep.join((str(plugin / "*"), class_path)), *tool)
    users = {
        "_meta": {"type": "internalusers", "config_version": 2},
        **{
            name: {"hash": digest.splitlines()[-1], "backend_roles": [role]}
            for name, role in DEMO_USERS.items()
        },
    }
    (folder / "users.yml").write_text(json.dumps(users), "utf-8")  # JSON is valid YAML


def _settings(secret: str) -> Iterator[str]:
    """Yield the lines of opensearch.yml; a command line would show the password to all users."""
    stores: Mapping[str, str] = {
        "keystore_type": "PKCS12",
        "keystore_filepath": "node.p12",
        "keystore_password": secret,
        "keystore_keypassword": secret,
        "truststore_type": "PKCS12",
        "truststore_filepath": "trust.p12",
        "truststore_password": secret,
    }
    for layer in ("transport", "http"):
        for name, value in stores.items():
            yield f"plugins.security.ssl.{layer}.{name}: {json.dumps(value)}\n"
    yield "plugins.security.ssl.http.enabled: true\n"
    yield "plugins.security.ssl.transport.enforce_hostname_verification: false\n"
    yield "plugins.security.nodes_dn: ['CN=node']\n"
    yield "plugins.security.allow_default_init_securityindex: true\n"
    yield "plugins.security.restapi.roles_enabled: [all_access]\n"
