"""Text tower of a portable encoder as an archive for ml-commons, a plugin of OpenSearch.

    NAME.zip     a graph and tokenizer.json, as ml-commons loads them
    NAME.json    size, sha256 and settings for the registration, sample texts with their codes

``xmodal export --ml-commons`` writes both files. Reading them needs neither torch nor onnx.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.checksums import check_digest, check_file, with_digest
from xmodal.codes import check_bits
from xmodal.errors import CodeError, ModelError

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

    @property
    def max_differing_share(self) -> float:
        """Largest share of bits of the samples that may differ in a cluster: 0 for float32.

        Codes in int8 depend on the processor and on the version of onnxruntime.
        """
        return 0.1 if self.precision == "int8" else 0.0

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the zip file in parts of at most CHUNK_BYTES."""
        with self.file.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def to_json(self) -> str:
        """Return the content of the JSON file."""
        left_out = ("file", "size", "sha256")
        values = {name: value for name, value in vars(self).items() if name not in left_out}
        archive = {"name": self.file.name, "bytes": self.size, "sha256": self.sha256}
        content = {"kind": KIND, "format": FORMAT, "archive": archive} | values
        return json.dumps(with_digest(content), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> TextTower:
        """Return the archive at ``path``: its zip file or its JSON file.

        Raises ModelError if a file is missing, damaged, or of another export.
        """
        given = Path(path)
        description, file = given.with_suffix(".json"), given.with_suffix(".zip")
        again = "export it again: xmodal export --ml-commons"
        try:
            content = dict(json.loads(description.read_text("utf-8")))
            check_digest(content, description.name)
            if content["kind"] != KIND or content["format"] != FORMAT:
                raise ModelError(f"{description} is no {KIND} of format {FORMAT}: {again}")
            tower = cls(
                file=file,
                name=str(content["name"]),
                fingerprint=str(content["fingerprint"]),
                bits=check_bits(content["bits"]),
                precision=str(content["precision"]),
                max_tokens=int(content["max_tokens"]),
                size=int(content["archive"]["bytes"]),
                sha256=str(content["archive"]["sha256"]),
                model_config=dict(content["model_config"]),
                samples=tuple(
                    (str(text), tuple(map(int, code))) for text, code in content["samples"]
                ),
            )
        except OSError as error:
            raise ModelError(
                f"{error.filename or given}: {error.strerror}, expected a .zip file and the .json "
                f"file of the same name: {again}"
            ) from None
        except (ValueError, KeyError, TypeError, CodeError):
            raise ModelError(f"{description} is damaged: {again}") from None
        try:
            check_file(file, content["archive"])
        except (ValueError, OSError) as error:
            raise ModelError(f"{error}, expected the archive of {description}: {again}") from None
        return tower
