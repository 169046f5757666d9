"""The image of the service is built and run by buildah and namespaces, without a daemon.

XMODAL_BASE_IMAGE is a tar file with the root file system that takes the place of the base image:
Debian with Python 3.11 as /usr/local/bin/python, for instance made by mmdebstrap. Packages are
downloaded. Root rights are required.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "service.Dockerfile"
BASE = "docker.io/library/python:3.11-slim-bookworm"
USED_FROM_HERE = ("/etc/ssl/certs", "/etc/pip.conf")
"""Settings of this machine for the downloads of pip."""

RUN = """
set -e
root=$1 workdir=$2 user=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  mount -o remount,bind,ro "$root$2"
  shift 2
done
shift
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"
exec setpriv --no-new-privs chroot --userspec="$user" "$root" /usr/bin/env -i -C "$workdir" "$@"
"""
"""Run a command in a root file system: read-only except /tmp, without capabilities."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The root file system of the built image, and its configuration."""
    base = os.environ.get("XMODAL_BASE_IMAGE")
    if base is None or shutil.which("buildah") is None or os.getuid():
        pytest.skip("builds the image with buildah as root on $XMODAL_BASE_IMAGE, a tar file")
    folder = tmp_path_factory.mktemp("buildah")
    storage = ("--root", folder / "storage", "--runroot", folder / "run")

    def buildah(command: str, *arguments: object) -> str:
        line = [*map(str, ("buildah", *storage, command, *arguments))]
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
        done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    container = buildah("from", "scratch")
    buildah("add", container, base, "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah("commit", container, BASE)
    volumes = [one for path in USED_FROM_HERE for one in ("-v", f"{path}:{path}:ro")]
    ignored = ("--ignorefile", f"{DOCKERFILE}.dockerignore")
    buildah(
        "bud", "--pull=never", *ignored, *volumes, "-t", "xmodal-service", "-f", DOCKERFILE, "."
    )
    inspected = json.loads(buildah("inspect", "--type", "image", "localhost/xmodal-service"))
    container = buildah("from", "--pull=never", "localhost/xmodal-service")
    yield Path(buildah("mount", container)), inspected["OCIv1"]["config"]
    buildah("umount", container)
    subprocess.run(["umount", "--quiet", folder / "storage" / "overlay"])  # buildah mounts it
    shutil.rmtree(folder, ignore_errors=True)  # some gigabytes


@pytest.mark.slow
def test_the_image_serves_as_an_unprivileged_user_on_a_read_only_file_system(
    image: tuple[Path, dict[str, Any]], portable_path: Path, index_path: Path, photos_folder: Path
) -> None:
    root, config = image
    binds: list[object] = []
    for source, target in ((portable_path, "/model"), (index_path, "/index")):
        copy = root.parent / target[1:]
        shutil.copytree(source, copy)  # pytest's folders are closed to other users
        (root / target[1:]).mkdir()
        binds += [copy, target]
    (root / "probe").write_text(
        "touch /x; touch /opt/xmodal/x; touch /tmp/x && python -c 'import xmodal' && id -u\n"
        "python -c 'import torch' 2>&1 | tail -1"
    )
    start = ["unshare", "-m", "-p", "-f", "--kill-child", "bash", "-c", RUN, "run"]
    command = [*start, root, config["WorkingDir"], config["User"], *binds, "--", *config["Env"]]
    probe = subprocess.run(
        [*map(str, command), "sh", "/probe"], capture_output=True, text=True, timeout=60
    )
    assert probe.stderr.count("Read-only file system") == 2
    assert probe.stdout.split("\n")[0] == "10001" and "No module named 'torch'" in probe.stdout

    served = [*config["Entrypoint"], *config["Cmd"], "--port", "0"]
    with subprocess.Popen(
        [*map(str, command), *served], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("listening on "):
                break
        url = lines[-1].strip().replace("listening on http://0.0.0.0", "http://127.0.0.1")
        answer = httpx.post(f"{url}/v1/search", json={"text": "a red circle"}, trust_env=False)
        assert answer.status_code == 200 and len(answer.json()["hits"]) == 20
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        status = Path(f"/proc/{children[0]}/status").read_text()
        assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
        subprocess.run(["kill", "-TERM", children[0]], check=True)
        started = time.monotonic()
        assert process.wait(30) == 0 and time.monotonic() - started < 15
