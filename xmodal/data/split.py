"""Division of pairs into training, validation, query and gallery parts, by groups."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.lazy_items import Grouping
from xmodal.data.names import take_names
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
Roles = npt.NDArray[np.int8]
"""Parts as positions in ROLES; -1 is none."""


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

    def ids(self) -> dict[str, Sequence[str]]:
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
    groups = data.grouping
    roles = _roles_by_name(named, groups)
    sampled = _sample(roles, groups.names, query, validation, seed)
    _keep_few_captions(data, groups, sampled, roles)
    roles = np.where(sampled >= 0, sampled, roles)[groups.codes]
    parts = {role: data.take(np.flatnonzero(roles == n)) for n, role in enumerate(ROLES)}
    if len(parts["train"]) < MIN_TRAINING_PAIRS:
        raise DataError(_too_few(data, named, parts))
    return Split(**parts)


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
    counts = Counter(name for name in data.splits if name is not None)
    meaning: dict[str | None, Role | None] = {name: role_of(name, split_map) for name in counts}
    unknown = next((name for name, role in meaning.items() if role is None), None)
    if unknown is not None:
        found = ", ".join(
            f"{name!r} ({counts[name]:,} items: {meaning[name] or 'not understood'})"
            for name in sorted(counts)
        )
        raise ConfigError(
            f"{data.name} has the split {unknown!r}, which is not understood; found {found}: say "
            f"what it means with --split-map {unknown}=PART, a part is {', '.join(ROLES)}"
        )
    return data.with_splits([meaning.get(name) for name in data.splits]) if counts else data


def check_split_map(data: Dataset, split_map: Mapping[str, str]) -> None:
    """Raise ConfigError for an unknown part, or a name that is not a split of ``data``."""
    found = {name for name in data.splits if name is not None}
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
    if data.lazy:  # names of features, which differ
        return False
    pictures = {image for item in data for image in item.images}
    captions = {caption for item in data for caption in _captions(item)}
    return 0 < len(captions) < FEW_CAPTIONS * len(pictures)


def _captions(item: Item) -> Iterable[str]:
    """Return the captions without differences of case and spaces."""
    return (" ".join(caption.casefold().split()) for caption in item.captions)


def _roles_by_name(data: Dataset, groups: Grouping) -> Roles:
    """Return the part of each group, (g,), by the names of its items; "train" without a name."""
    number: dict[str | None, int] = {role: place for place, role in enumerate(ROLES)}
    named = np.array([number.get(name, -1) for name in data.splits], np.int8)
    has = np.zeros((len(groups.names), len(ROLES)), np.bool_)
    known = named >= 0
    has[groups.codes[known], named[known]] = True
    roles = np.full(len(groups.names), ROLES.index("train"), np.int8)
    for role in reversed(PRECEDENCE):
        roles[has[:, ROLES.index(role)]] = ROLES.index(role)
    several, ids = has.sum(axis=1) > 1, data.ids
    for row in np.flatnonzero(several[groups.codes] & (named != roles[groups.codes])).tolist():
        code = groups.codes[row]
        found = ", ".join(sorted(ROLES[place] for place in np.flatnonzero(has[code])))
        kind = f"picture in several splits ({found}), counted as {ROLES[roles[code]]}"
        data.problems.add(kind, ids[row])
    return roles


def _sample(
    roles: Roles, names: Sequence[str], query: float, validation: float, seed: int
) -> Roles:
    """Return (g,) which groups of the training part become queries or validation, else -1.

    Each group has a hash in [0, 1): queries have the smallest, validation has the largest.
    """
    train, queries, held_out = (ROLES.index(role) for role in ("train", "query", "validation"))
    sampled = np.full(len(roles), -1, np.int8)
    if not (query or validation):
        return sampled
    groups = np.flatnonzero(roles == train)
    place = np.fromiter((_place(name, seed) for name in take_names(names, groups)), np.float64)
    order = np.argsort(place, kind="stable")
    ranked, place = groups[order], place[order]
    first = 0
    if not (roles == queries).any() and query and len(ranked):
        below = int(np.count_nonzero(place < query))
        spare = len(ranked) - MIN_TRAINING_PAIRS - (validation > 0)
        first = len(ranked[: _count(below, query * len(ranked), spare)])
        sampled[ranked[:first]] = queries
    rest = ranked[first:]
    if not (roles == held_out).any() and validation and len(rest):
        above = int(np.count_nonzero(place[first:] >= 1 - validation))
        count = _count(above, validation * len(ranked), len(rest) - MIN_TRAINING_PAIRS)
        if (roles == queries).any():
            count = min(count, MAX_VALIDATION)
        sampled[rest[-count:]] = held_out
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


def _keep_few_captions(data: Dataset, groups: Grouping, sampled: Roles, roles: Roles) -> None:
    """If captions are few, remove groups from ``sampled`` until training has every caption."""
    if not (sampled >= 0).any() or not few_captions(data):
        return
    captions: list[set[str]] = [set() for _ in groups.names]
    for code, item in zip(groups.codes.tolist(), data, strict=True):
        captions[code].update(_captions(item))
    training = np.flatnonzero((roles == ROLES.index("train")) & (sampled < 0))
    trained = {caption for group in training.tolist() for caption in captions[group]}
    for group in sorted(np.flatnonzero(sampled >= 0).tolist(), key=groups.names.__getitem__):
        if not captions[group] <= trained:
            trained |= captions[group]
            sampled[group] = -1


def _too_few(data: Dataset, named: Dataset, parts: Mapping[Role, Dataset]) -> str:
    """Return the message for too few training pairs: their number and why."""
    counts = ", ".join(f"{len(items):,} {role}" for role, items in parts.items() if items)
    why = "".join(f"; {line}" for line in data.problems.summary_lines())
    meaning = dict(zip(data.splits, named.splits, strict=True))
    names = sorted(name for name in meaning if name is not None)
    if names:
        found = ", ".join(f"{name!r} is {meaning[name]}" for name in names)
        why = f"; the splits of the data: {found}; change it with --split-map NAME=train" + why
    return (
        f"{data.name} leaves {len(parts['train'])} pairs of picture and text for training, "
        f"expected at least {MIN_TRAINING_PAIRS} of {len(data):,} ({counts or 'no pair'}){why}"
    )
