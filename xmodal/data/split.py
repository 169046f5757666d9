"""Division of pairs into training, validation, query and gallery parts, by groups."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from xmodal.data.dataset import Dataset, Item
from xmodal.errors import ConfigError, DataError

Role = Literal["train", "validation", "query", "gallery"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Parts of a split."""
ROLE_NAMES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval", "restval", "database", "retrieval"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "minival"),
    "query": ("query", "queries", "test", "testing", "eval", "evaluation", "holdout", "heldout"),
    "gallery": ("gallery",),
}
"""Names of each part; :func:`role_of` describes how they are compared."""
PRECEDENCE: tuple[Role, ...] = ("query", "validation", "gallery", "train")
"""Part of a group whose items name several parts: the first of these."""
MIN_TRAINING_PAIRS = 8
MAX_VALIDATION = 300
"""Groups of a validation part that is sampled from data with its own query part."""
FEW_CAPTIONS = 0.1
"""Captions are few if there are fewer different ones than this share of the pictures."""


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a set of pairs.

    ``train`` is for training, ``validation`` for the choice of the epoch, ``query`` holds the test
    queries. An evaluation searches all other parts; it alone uses ``gallery``.
    """

    train: Dataset
    validation: Dataset
    query: Dataset
    gallery: Dataset

    def ids(self) -> dict[str, list[str]]:
        """Return the ids of each part; a trained encoder stores them."""
        return {role: getattr(self, role).ids for role in ROLES}


def split(
    data: Dataset,
    *,
    validation: float = 0.1,
    query: float = 0.1,
    seed: int = 0,
    split_map: Mapping[str, str] | None = None,
) -> Split:
    """Divide pairs into train, validation and query parts; a group is never in two parts.

    The group of an item without one is its id. Items whose ``split`` names a part go to it, see
    :func:`with_roles`; a group whose items name several parts goes to the first of PRECEDENCE.
    If no item names the query (validation) part, it gets each group of the training part with the
    probability ``query`` (``validation``). This choice depends on the group and ``seed`` only, so
    that further data does not move a group to another part; a sample of less than half of its share
    is filled up to that. If
    captions are few (FEW_CAPTIONS), chosen groups return to the training part until it has every
    caption.

    Raises ConfigError unless 0 <= share < 0.5 and for unknown split names, DataError if fewer than
    8 pairs are left for training.
    """
    for name, share in (("validation", validation), ("query", query)):
        if not 0 <= share < 0.5:
            raise ConfigError(f"{name} share is {share}, expected between 0 and 0.5")
    named = with_roles(data, split_map or {})
    roles = _roles_by_name(named)
    sampled = _sample(roles, query, validation, seed)
    _keep_few_captions(data, sampled, roles)
    roles |= sampled
    parts: dict[Role, list[Item]] = {role: [] for role in ROLES}
    for item in data:
        parts[roles[_group(item)]].append(item)
    if len(parts["train"]) < MIN_TRAINING_PAIRS:
        raise DataError(_too_few(data, named, parts))
    return Split(**{role: replace(data, items=tuple(items)) for role, items in parts.items()})


def role_of(name: str, split_map: Mapping[str, str] | None = None) -> Role | None:
    """Return the part that a split name means, None if it is unknown.

    ``split_map`` maps names, in any case, to names of parts. Other names are compared with
    ROLE_NAMES without case, digits and punctuation ("Hold-out", "val2017"), else by their first
    word ("test_A", "devStandard").
    """
    own = {key.strip().casefold(): value for key, value in (split_map or {}).items()}
    name = own.get(name.strip().casefold(), name)
    words = [word.casefold() for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name)]
    for candidate in ("".join(words), *words[:1]):
        for role, names in ROLE_NAMES.items():
            if candidate in names:
                return role
    return None


def with_roles(data: Dataset, split_map: Mapping[str, str]) -> Dataset:
    """Return a copy in which the split of each item is the name of a part, or None.

    Raises ConfigError in one line for split names that :func:`role_of` does not understand; it has
    all names with the number of their items and their meaning.
    """
    counts = Counter(item.split for item in data if item.split is not None)
    meaning = {name: role_of(name, split_map) for name in counts}
    unknown = next((name for name, role in meaning.items() if role is None), None)
    if unknown is not None:
        found = ", ".join(
            f"{name!r} ({counts[name]:,} items: {role or 'not understood'})"
            for name, role in sorted(meaning.items())
        )
        raise ConfigError(
            f"{data.name} has the split {unknown!r}, which is not understood; found {found}: say "
            f"what it means with --split-map {unknown}=PART, a part is {', '.join(ROLES)}"
        )
    items = (
        replace(item, split=meaning[item.split]) if item.split is not None else item
        for item in data
    )
    return replace(data, items=tuple(items))


def check_split_map(data: Dataset, split_map: Mapping[str, str]) -> None:
    """Raise ConfigError for an unknown part, or a name that is not a split of ``data``."""
    found = {item.split for item in data if item.split is not None}
    known = {name.strip().casefold() for name in found}
    for name, part in split_map.items():
        if role_of(part) is None:
            raise ConfigError(
                f"--split-map {name}={part}: there is no part {part!r}, expected one of "
                f"{', '.join(ROLES)}"
            )
        if name.strip().casefold() not in known:
            names = ", ".join(sorted(found)) or "none"
            raise ConfigError(f"--split-map {name}={part}: {data.name} has the splits {names}")


def few_captions(data: Dataset) -> bool:
    """Whether the pairs have fewer different captions than a tenth of their pictures."""
    pictures = {image for item in data for image in item.images}
    captions = {caption for item in data for caption in _captions(item)}
    return 0 < len(captions) < FEW_CAPTIONS * len(pictures)


def _group(item: Item) -> str:
    return item.group if item.group is not None else item.id


def _captions(item: Item) -> Iterable[str]:
    """Return the captions without differences of case and spaces."""
    return (" ".join(caption.casefold().split()) for caption in item.captions)


def _roles_by_name(data: Dataset) -> dict[str, Role]:
    """Return the part of each group, by the names of its items; "train" without a name."""
    named: dict[str, set[Role]] = {}
    for item in data:
        roles = named.setdefault(_group(item), set())
        if item.split is not None:
            roles.update(role for role in ROLES if role == item.split)
    for item in data:
        if len(roles := named[_group(item)]) > 1:
            kept = next(role for role in PRECEDENCE if role in roles)
            if item.split != kept:
                data.problems.add(
                    f"picture in several splits ({', '.join(sorted(roles))}), counted as {kept}",
                    item.id,
                )
    return {
        group: next((role for role in PRECEDENCE if role in roles), "train")
        for group, roles in named.items()
    }


def _sample(
    roles: Mapping[str, Role], query: float, validation: float, seed: int
) -> dict[str, Role]:
    """Return the groups of the training part that become queries or validation.

    Each group has a hash in [0, 1): queries have the smallest, validation has the largest.
    """
    place = {group: _place(group, seed) for group, role in roles.items() if role == "train"}
    ranked = sorted(place, key=place.__getitem__)
    sampled: dict[str, Role] = {}
    if "query" not in roles.values() and query and ranked:
        below = sum(place[group] < query for group in ranked)
        spare = len(ranked) - MIN_TRAINING_PAIRS - (validation > 0)
        sampled |= dict.fromkeys(ranked[: _count(below, query * len(ranked), spare)], "query")
    rest = ranked[len(sampled) :]
    if "validation" not in roles.values() and validation and rest:
        above = sum(place[group] >= 1 - validation for group in rest)
        count = _count(above, validation * len(ranked), len(rest) - MIN_TRAINING_PAIRS)
        if "query" in roles.values():
            count = min(count, MAX_VALIDATION)
        sampled |= dict.fromkeys(rest[-count:], "validation")
    return sampled


def _count(chosen: int, expected: float, spare: int) -> int:
    """Return the size of a sample: ``chosen`` by hash, but at least half of the expected number.

    At least 1, and otherwise at most ``spare``, so that little data leaves enough for training.
    """
    return max(1, min(max(chosen, math.ceil(expected / 2)), spare))


def _place(group: str, seed: int) -> float:
    """Return a pseudo-random number in [0, 1) that depends on the group and the seed."""
    digest = hashlib.blake2b(f"split {seed}\0{group}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _keep_few_captions(data: Dataset, sampled: dict[str, Role], roles: Mapping[str, Role]) -> None:
    """If captions are few, remove groups from ``sampled`` until training has every caption."""
    if not sampled or not few_captions(data):
        return
    captions: dict[str, set[str]] = {}
    for item in data:
        captions.setdefault(_group(item), set()).update(_captions(item))
    trained = {
        caption
        for group, found in captions.items()
        if roles[group] == "train" and group not in sampled
        for caption in found
    }
    for group in sorted(sampled):
        if not captions[group] <= trained:
            trained |= captions[group]
            del sampled[group]


def _too_few(data: Dataset, named: Dataset, parts: Mapping[Role, list[Item]]) -> str:
    """Return the message for too few training pairs: their number and why."""
    counts = ", ".join(f"{len(items):,} {role}" for role, items in parts.items() if items)
    why = "".join(f"; {line}" for line in data.problems.summary_lines())
    names = Counter(item.split for item in data if item.split is not None)
    if names:
        meaning = {item.split: role.split for item, role in zip(data, named, strict=True)}
        found = ", ".join(f"{name!r} is {meaning[name]}" for name in sorted(names))
        why = f"; the splits of the data: {found}; change it with --split-map NAME=train" + why
    return (
        f"{data.name} leaves {len(parts['train'])} pairs of picture and text for training, "
        f"expected at least {MIN_TRAINING_PAIRS} of {len(data):,} ({counts or 'no pair'}){why}"
    )
