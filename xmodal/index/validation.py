"""Checks of the arguments of an index, the same for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes, check_bits
from xmodal.errors import CodeError, ConfigError, IndexMismatch
from xmodal.modality import MODALITIES, Modality


def check_ids(ids: Sequence[str]) -> None:
    """What every backend checks before it adds or deletes. Raises ConfigError."""
    if isinstance(ids, str):
        raise ConfigError(f"ids is the text {ids!r}, expected a list of ids")
    for one in ids:
        if not _is_id(one):
            raise ConfigError(
                f"id {one!r} is not usable, expected text that is not empty and valid Unicode"
            )


def check_documents(
    ids: Sequence[str],
    bits: int,
    codes: Mapping[Modality, BinaryCodes | None],
    fields: Sequence[Mapping[str, Any]] | None,
) -> None:
    """What every backend checks before it adds. Raises CodeError or ConfigError."""
    check_ids(ids)
    if all(given is None for given in codes.values()):
        raise CodeError("documents without any code: give image codes, text codes or both")
    for side, given in codes.items():
        if given is None:
            continue
        if given.bits != bits:
            raise CodeError(f"{side} codes have {given.bits} bits, this index holds {bits}")
        if len(given) != len(ids):
            raise CodeError(f"{len(given)} {side} codes for {len(ids)} ids, expected one an id")
    if fields is not None and len(fields) != len(ids):
        raise ConfigError(f"{len(fields)} sets of fields for {len(ids)} ids, expected one an id")


def check_search(
    queries: BinaryCodes, bits: int, k: int, target: Modality, radius: int | None
) -> None:
    """What every backend checks before it searches. Raises CodeError or ConfigError."""
    if queries.bits != bits:
        raise CodeError(
            f"the query has {queries.bits} bits, this index holds {bits}: "
            "search with the encoder that filled the index"
        )
    if target not in MODALITIES:
        raise ConfigError(f"target is {target!r}, expected 'image' or 'text'")
    if k < 1:
        raise ConfigError(f"k is {k}, expected at least 1")
    if radius is not None and radius < 0:
        raise ConfigError(f"radius is {radius}, expected a distance of 0 or more bits")


def check_identity(
    where: str, *, bits: int, encoder: str | None, want_bits: int | None, want_encoder: str | None
) -> None:
    """Compare what an index remembers with what the caller brings. Raises IndexMismatch."""
    if want_bits is not None and check_bits(want_bits) != bits:
        raise IndexMismatch(
            f"{where} holds codes of {bits} bits, asked for {want_bits}: "
            "use the encoder that filled it, or make a new index"
        )
    if want_encoder is not None and encoder is not None and want_encoder != encoder:
        raise IndexMismatch(
            f"{where} was filled by encoder {encoder}, this is encoder {want_encoder}: codes of "
            "two encoders cannot be compared; use that encoder, or index again into a new place"
        )


def _is_id(one: object) -> bool:
    """Whether it is text that can be written: a file name that is not UTF-8 cannot."""
    try:
        return isinstance(one, str) and bool(one.encode())
    except UnicodeEncodeError:
        return False
