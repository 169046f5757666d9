"""Text tower of a portable encoder as an archive for ml-commons, a plugin of OpenSearch.

    NAME.zip     a graph and tokenizer.json, as ml-commons loads them
    NAME.json    size, sha256 and settings for the registration, sample texts with their codes

``xmodal export --ml-commons`` writes both files. Reading them needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.codes import check_bits
from xmodal.errors import ModelError

KIND, FORMAT = "xmodal text tower for ml-commons", 1
CHUNK_BYTES = 10_000_000
"""Largest part of an archive in one request to ml-commons."""
Samples = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class TextTower:
    """Archive of a text tower.

    file: the zip file. name: of the exported model. fingerprint, bits, precision: of its codes.
    max_tokens: longer texts are truncated. size, sha256: of the zip file. model_config: settings
    of the registration in ml-commons. samples: texts and their codes as signed bytes.
    """

    file: Path
    name: str
    fingerprint: str
    bits: int
    precision: str
    max_tokens: int
    size: int
    sha256: str
    model_config: Mapping[str, Any]
    samples: Samples

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the zip file in parts of at most CHUNK_BYTES."""
        with self.file.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def to_json(self) -> str:
        """Return the content of the JSON file."""
        values = {name: value for name, value in vars(self).items() if name != "file"}
        content = {"kind": KIND, "format": FORMAT, "file": self.file.name} | values
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> TextTower:
        """Return the archive at ``path``: its zip file or its JSON file.

        Raises ModelError if a file is missing, damaged, or of another export.
        """
        given = Path(path)
        description, file = given.with_suffix(".json"), given.with_suffix(".zip")
        again = "export it again: xmodal export --ml-commons"
        try:
            content = json.loads(description.read_text("utf-8"))
            if content["kind"] != KIND or content["format"] != FORMAT:
                raise ModelError(f"{description} is no {KIND} of format {FORMAT}: {again}")
            tower = cls(
                file=file,
                name=str(content["name"]),
                fingerprint=str(content["fingerprint"]),
                bits=check_bits(content["bits"]),
                precision=str(content["precision"]),
                max_tokens=int(content["max_tokens"]),
                size=int(content["size"]),
                sha256=str(content["sha256"]),
                model_config=dict(content["model_config"]),
                samples=tuple(
                    (str(text), tuple(map(int, code))) for text, code in content["samples"]
                ),
            )
            with file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            size = file.stat().st_size
        except OSError as error:
            raise ModelError(
                f"{error.filename or given}: {error.strerror}, expected a .zip file and the .json "
                f"file of the same name: {again}"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{description} is damaged: {again}") from None
        if (size, found) != (tower.size, tower.sha256):
            raise ModelError(f"{file} is damaged or belongs to another export: {again}")
        return tower
