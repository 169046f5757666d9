"""Tokens of clients: roles, token files, their permissions, and reloading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.service_process import running

from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError
from xmodal.service.tokens import Token, TokenCheck, read_token_file, read_token_files

READER, WRITER = "reader-0123456789", "writer-0123456789"


def token_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_roles_allow_searching_and_encoding(
    encoder: Encoder, index_path: Path, tmp_path: Path
) -> None:
    lines = f"# clients\nshop search {READER}\n\nloader search,write {WRITER}\n"
    file = token_file(tmp_path / "tokens", lines)
    with running(encoder, index_path, token_files=(file,)) as service:

        def status(secret: str, path: str, body: object) -> int:
            headers = {"Authorization": f"Bearer {secret}"}
            return service.client.post(path, json=body, headers=headers).status_code

        for path, body, reader in (
            ("/v1/search", {"text": "a red circle"}, 200),
            ("/v1/encode", {"texts": ["a red circle"]}, 403),
            ("/v1/embed", {"inputText": "a red circle"}, 403),
        ):
            assert status(WRITER, path, body) == 200
            assert status(READER, path, body) == reader
            assert status(READER[:-1], path, body) == 401
        about = {"Authorization": f"bearer {READER}"}
        assert service.client.get("/v1/about", headers=about).status_code == 200


def test_changed_file_is_read_again_and_an_invalid_one_is_not_used(tmp_path: Path) -> None:
    file = token_file(tmp_path / "token", READER)
    check = TokenCheck((), (file,))
    token_file(file, f"a search {WRITER}\n")
    check.reload()
    assert check.find(f"Bearer {READER}") is None
    found = check.find(f"Bearer {WRITER}")
    assert found is not None and found.roles == {"search"} and WRITER not in repr(found)
    token_file(file, "short")
    check.reload()
    assert check.find(f"Bearer {WRITER}") == found and check.required
    file.unlink()
    check.reload()
    assert check.find(f"Bearer {WRITER}") == found


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o602])
def test_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = token_file(tmp_path / "token", READER, mode)
    with pytest.raises(ConfigError, match=re.escape(f"chmod 600 {file}")):
        read_token_file(file)
    link = tmp_path / "link"
    link.symlink_to(file)  # as Kubernetes mounts secrets
    with pytest.raises(ConfigError, match="defaultMode"):
        read_token_file(link)
    file.chmod(0o400)
    assert read_token_file(link) == [Token("default", READER)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "short",
        "a secret with spaces",
        f"a admin {READER}",
        f"a search {READER}\nb write short",
        f"a search {READER}\na search {WRITER}",
        f"a search {READER}\nb write {READER}",
        f"{READER}\n{WRITER}",
        f"é{READER}",
        "a" * 70_000,
    ],
)
def test_invalid_file_is_refused_without_its_secrets(tmp_path: Path, text: str) -> None:
    file = token_file(tmp_path / "token", text)
    with pytest.raises(ConfigError, match="--token-file") as caught:
        read_token_files([file])
    assert READER not in str(caught.value) and "\n" not in str(caught.value)
