"""Checks of arguments that all index backends share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xmodal.codes import BinaryCodes, check_bits
from xmodal.errors import CodeError, ConfigError, IndexMismatch
from xmodal.modality import MODALITIES, Modality

if TYPE_CHECKING:
    from xmodal.index.query_codes import QueryCodes


def check_ids(ids: Sequence[str]) -> None:
    """Raise ConfigError for ids that no backend stores."""
    if isinstance(ids, str):
        raise ConfigError(f"ids is the text {ids!r}, expected a list of ids")
    for id_ in ids:
        if not _is_id(id_):
            raise ConfigError(
                f"id {id_!r} is not usable, expected text that is not empty and valid Unicode"
            )


def check_width(found: int, bits: int) -> None:
    """Raise CodeError for codes of another width than that of the index."""
    if found != bits:
        raise CodeError(f"these codes have {found} bits, this index holds {bits}")


def check_search(
    queries: BinaryCodes | QueryCodes, bits: int, k: int, target: Modality, radius: int | None
) -> None:
    """Raise CodeError or ConfigError for arguments of a search that no backend accepts."""
    if queries.bits != bits:
        raise CodeError(
            f"the query has {queries.bits} bits, this index holds {bits}: "
            "search with the encoder that filled the index"
        )
    check_target(target)
    check_k(k)
    if radius is not None and radius < 0:
        raise ConfigError(f"radius is {radius}, expected a distance of 0 or more bits")


def check_target(target: Modality) -> None:
    """Raise ConfigError for a target that is no modality."""
    if target not in MODALITIES:
        raise ConfigError(f"target is {target!r}, expected 'image' or 'text'")


def check_k(k: int) -> None:
    """Raise ConfigError for a number of hits that no backend accepts."""
    if k < 1:
        raise ConfigError(f"k is {k}, expected at least 1")


def check_dim(queries: QueryCodes, dim: int | None) -> None:
    """Raise CodeError for query vectors of another dimension than those of the index."""
    if dim is not None and queries.vectors is not None and queries.vectors.shape[1] != dim:
        raise CodeError(
            f"the query has a vector of {queries.vectors.shape[1]} dimensions, this index holds "
            f"{dim}: search with the encoder that filled the index"
        )


def check_identity(
    index: str,
    *,
    bits: int,
    fingerprint: str | None,
    expected_bits: int | None,
    expected_fingerprint: str | None,
) -> None:
    """Raise IndexMismatch if ``index`` stores another width or fingerprint than expected."""
    if expected_bits is not None and check_bits(expected_bits) != bits:
        raise IndexMismatch(
            f"{index} holds codes of {bits} bits, expected {expected_bits}: "
            "use the encoder that filled it, or make a new index"
        )
    if None not in (expected_fingerprint, fingerprint) and expected_fingerprint != fingerprint:
        raise IndexMismatch(
            f"{index} was filled by encoder {fingerprint}, this is encoder {expected_fingerprint}: "
            "codes of two encoders cannot be compared; use that encoder, or index again into a new "
            "index"
        )


def _is_id(value: object) -> bool:
    """Whether ``value`` is text, not empty, that UTF-8 can encode; some file names cannot."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False
