"""Portable encoders on the model hub: names, and downloads that are bounded and checked.

A name is ``OWNER/NAME``, or ``hf://OWNER/NAME@REVISION``, where a revision is a branch, a tag or a
commit. The package huggingface_hub reads $HF_ENDPOINT, $HF_TOKEN, $HF_HUB_OFFLINE and its cache.
Only ``config.json`` and the files that it records are downloaded, under the names that a portable
encoder has; none of them is code of Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.checksums import check_file, check_size
from xmodal.encoders.folder import (
    CONFIG,
    DAMAGE_ERRORS,
    FILES_KEY,
    HUB_SCHEME,
    ONNX_ENCODER,
    read_config,
)
from xmodal.errors import ConfigError, ModelError, XmodalError, one_line, require
from xmodal.features.backbones.connectivity import check_reachable

MAX_CONFIG = 1 << 24
"""Bytes of the largest ``config.json`` that is downloaded."""
MAX_BYTES = 1 << 35
"""Bytes of the largest encoder that is downloaded: 32 GiB."""
MISSING = "is not in the download cache"
LOGIN = "log in with hf auth login or $HF_TOKEN"
PLAIN_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
REVISION = re.compile(r"[\w-][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class HubName:
    """Name of an encoder on the hub: ``OWNER/NAME``; ``revision``: None for the default branch."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB_SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> HubName:
        """Parse ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, with or without ``hf://`` before it.

        Raises ConfigError for another text, and for two different revisions.
        """
        repo, _, named = text.removeprefix(HUB_SCHEME).partition("@")
        revisions = {one for one in (named, revision) if one}
        known = PLAIN_NAME.fullmatch(repo) and all(map(REVISION.fullmatch, revisions))
        if not known or any(".." in one for one in (repo, *revisions)):
            raise ConfigError(
                f"{text!r} is no name of the model hub, expected hf://OWNER/NAME or "
                "hf://OWNER/NAME@REVISION"
            )
        if len(revisions) > 1:
            raise ConfigError(f"{text} names another revision than {revision!r}: name one")
        return cls(repo, next(iter(revisions), None))


def is_hub_name(name: str | Path) -> bool:
    """Return whether a text has ``hf://``, or is ``OWNER/NAME`` and no file or folder."""
    if not isinstance(name, str):
        return False
    is_plain = PLAIN_NAME.fullmatch(name.partition("@")[0]) is not None
    return name.startswith(HUB_SCHEME) or (is_plain and not Path(name).exists())


def find_encoder(
    name: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """Return the folder of an encoder; it is downloaded if ``name`` is one of the hub.

    Raises ConfigError for a folder with ``revision``, and the errors of :func:`download`.
    """
    if is_hub_name(name):
        return download(HubName.parse(str(name), revision), token=token)
    if revision is not None:
        raise ConfigError(f"{name} is a folder, which has no revision: leave {revision!r} out")
    return Path(name)


def download(name: HubName, *, token: str | bool | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """Return the folder of an encoder of the hub, in the cache of huggingface_hub.

    All its files are of one commit. Those that are in the cache are not downloaded again; without
    a connection, the commit that the revision had last is used. ``token``: for private models, by
    default $HF_TOKEN or that of ``hf auth login``. ``max_bytes``: limit of all files together.

    Raises ModelError if there is no such encoder or revision, if the hub cannot be reached, if the
    encoder is too large, or if a file is not the one that ``config.json`` records; ExtraMissing
    without the package huggingface_hub.
    """
    require(str(name), "hub")
    from huggingface_hub import constants

    with hub_errors(name):
        if not _is_cached(name):  # the package retries for half a minute
            check_reachable(constants.ENDPOINT, str(name), _message)
        folder = _fetch(name, CONFIG, name.revision, token, MAX_CONFIG).parent
        for file, record in _records(name, folder, max_bytes).items():
            if not _is_there(folder / file, record):
                _check_hub_size(name, file, folder.name, token, record)
                path = _fetch(name, file, folder.name, token, record["bytes"])
                _check_fetched(name, path, record)
    return folder


def _is_cached(name: HubName) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name.repo, CONFIG, revision=name.revision), str)


def _records(name: HubName, folder: Path, max_bytes: int) -> dict[str, dict[str, Any]]:
    """Return the records of the files to download, in ``config.json`` of ``folder``.

    Raises ModelError if it is of no portable encoder, or if a record is not allowed.
    """
    try:
        files = read_config(folder, ONNX_ENCODER)[FILES_KEY]
        records: dict[str, dict[str, Any]] = {
            str(file): {"bytes": int(record["bytes"]), "sha256": str(record["sha256"])}
            for file, record in files.items()
        }
    except (ModelError, *DAMAGE_ERRORS) as error:
        raise ModelError(f"{name} is no portable encoder: {error}") from None
    unknown = sorted(records.keys() - ONNX_ENCODER.files)
    if unknown:
        raise ModelError(
            f"{CONFIG} of {name} records the file {unknown[0]!r}, which a portable encoder does "
            "not have: nothing of it was downloaded"
        )
    sizes = [record["bytes"] for record in records.values()]
    if min(sizes, default=0) < 0 or sum(sizes) > max_bytes:
        raise ModelError(
            f"{name} has {sum(sizes):,} bytes, expected at most {max_bytes:,}: copy its files "
            "yourself and name their folder"
        )
    return records


def _fetch(
    name: HubName, file: str, revision: str | None, token: str | bool | None, limit: int
) -> Path:
    """Return the path of a file in the cache; it is downloaded if it is not there.

    Raises ModelError after ``limit`` bytes.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import tqdm

    class Bounded(tqdm):
        """Progress bar that ends a download of more than ``limit`` bytes."""

        received = 0

        def __init__(self, *arguments: Any, **options: Any) -> None:
            # None: shown in a terminal only
            parent: Any = super()  # without types
            parent.__init__(*arguments, **options | {"disable": options.get("disable") or None})

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            if self.received > limit:
                raise ModelError(f"{file} of {name} has over {limit:,} bytes: it is not used")
            done: bool | None = super().update(n)
            return done

    options = {"revision": revision, "token": token, "library_name": "xmodal"}
    return Path(hf_hub_download(name.repo, file, tqdm_class=Bounded, **options))  # type: ignore[arg-type]


def _check_hub_size(
    name: HubName, file: str, commit: str, token: str | bool | None, record: Mapping[str, Any]
) -> None:
    """Raise ModelError if the hub has a file of another size than the recorded one."""
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(name.repo, file, revision=commit, token=token, dry_run=True)
    if found.file_size != record["bytes"]:
        raise ModelError(
            f"{file} of {name} has {found.file_size:,} bytes, {CONFIG} records "
            f"{record['bytes']:,}: ask its owner to push it again"
        )


def _is_there(path: Path, record: Mapping[str, Any]) -> bool:
    try:
        check_size(path, record)
    except ValueError:
        return False
    return True


def _check_fetched(name: HubName, path: Path, record: Mapping[str, Any]) -> None:
    """Raise ModelError if a file is not the recorded one; it is removed from the cache."""
    try:
        check_file(path, record)
    except ValueError as error:
        os.unlink(os.path.realpath(path))
        path.unlink(missing_ok=True)
        raise ModelError(f"{name} is damaged ({error}): ask its owner to push it again") from None


@contextmanager
def hub_errors(
    name: HubName, state: str = MISSING, advice: str = "name the folder of an encoder"
) -> Iterator[None]:
    """Context that turns the errors of huggingface_hub into a ModelError or ConfigError.

    ``state`` and ``advice``: what is said of ``name``, and what to do, if there is no connection.
    Errors of the system, such as a full disk, are raised as they are.
    """
    from huggingface_hub import errors

    try:
        yield
    except XmodalError:
        raise
    except errors.GatedRepoError:
        raise ModelError(
            f"{name} is open after its conditions are accepted on the hub: accept them there, and "
            f"{LOGIN}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no model {name.repo}, or it is private: check the name, or {LOGIN}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name.repo} on the hub has no revision {name.revision!r}") from None
    except errors.RemoteEntryNotFoundError as error:
        raise ModelError(
            f"{name} lacks {str(error.response.url).rpartition('/')[2]}, expected the files of "
            "xmodal export: name another model, or ask its owner to push it again"
        ) from None
    except (OSError, RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        if getattr(error, "errno", None) is not None:
            raise
        raise ModelError(f"{name} {state}, and {_reason(error)}: {advice}") from None
    except ValueError as error:  # a model card that the hub refuses
        raise ConfigError(f"{name} {state} ({one_line(str(error))[:200]})") from None


def _reason(error: BaseException) -> str:
    """Return why a request had no result."""
    from huggingface_hub import constants

    cause = error.__cause__ or error
    host = constants.ENDPOINT.partition("://")[2]
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{host} refuses the request ({status}): {LOGIN}"
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    text = one_line(str(getattr(cause, "server_message", None) or cause))[:160]
    return f"{host} answers {status} ({text})" if status else f"{host} cannot be reached ({text})"


def _message(name: str, reason: str) -> str:
    return f"{name} {MISSING}, and {reason}: name the folder of an encoder"
