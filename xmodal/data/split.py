"""Division of pairs into training, validation, query and gallery parts."""

from __future__ import annotations

from dataclasses import dataclass

from xmodal.data.dataset import Dataset, sample_by_hash
from xmodal.errors import ConfigError, DataError

ROLES = {
    "train": ("train", "training", "database", "retrieval", "restval"),
    "validation": ("validation", "valid", "val", "dev"),
    "query": ("query", "queries", "test", "testing"),
    "gallery": ("gallery",),
}
"""Parts of a split, and the names of each part in a ``split`` column (any case)."""
MIN_TRAINING_PAIRS = 8


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


def split(data: Dataset, *, validation: float = 0.1, query: float = 0.1, seed: int = 0) -> Split:
    """Divide pairs into train, validation and query parts.

    Items whose ``split`` is a name in ``ROLES`` go to that part, items with another name to train.
    If no item names the query (validation) part, it is a random sample of the training items with
    the share ``query`` (``validation``). Items of equal text stay together in a sample, which
    depends only on texts, ids and ``seed``, not on the order of the items.

    Raises ConfigError unless 0 <= share < 0.5, DataError if fewer than 8 pairs are left for
    training.
    """
    for name, share in (("validation", validation), ("query", query)):
        if not 0 <= share < 0.5:
            raise ConfigError(f"{name} share is {share}, expected between 0 and 0.5")
    roles = _named_roles(data)
    for role, share in (("query", query), ("validation", validation)):
        if role not in roles.values():
            _assign_sample(roles, data, role, share, seed)
    parts = {
        role: data.keep(lambda item, role=role: roles[item.id] == role)  # type: ignore[misc]
        for role in ROLES
    }
    if len(parts["train"]) < MIN_TRAINING_PAIRS:
        raise DataError(
            f"{data.name} leaves {len(parts['train'])} pairs of picture and text for training, "
            f"expected at least {MIN_TRAINING_PAIRS}"
            + "".join(f"; {line}" for line in data.problems.summary_lines())
        )
    return Split(**parts)


def _named_roles(data: Dataset) -> dict[str, str]:
    """Map each id to the part that its item's ``split`` names, or to "train"."""
    role_of_name = {name: role for role, names in ROLES.items() for name in names}
    return {item.id: role_of_name.get((item.split or "").strip().lower(), "train") for item in data}


def _assign_sample(
    roles: dict[str, str], data: Dataset, role: str, share: float, seed: int
) -> None:
    """Give ``role`` to a share of the training items; items of equal text are one group."""
    groups = {
        item.id: " ".join(" ".join(item.captions or (item.id,)).lower().split())
        for item in data
        if roles[item.id] == "train"
    }
    chosen = set(sample_by_hash(set(groups.values()), share, f"{role} {seed}"))
    roles.update({id_: role for id_, group in groups.items() if group in chosen})
