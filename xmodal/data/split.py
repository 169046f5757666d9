"""Division of items into training, validation, query and gallery parts."""

from __future__ import annotations

from dataclasses import dataclass

from xmodal.data.dataset import Dataset, first_share
from xmodal.errors import ConfigError, DataError

ROLES = {
    "train": ("train", "training", "database", "retrieval", "restval"),
    "validation": ("validation", "valid", "val", "dev"),
    "query": ("query", "queries", "test", "testing"),
    "gallery": ("gallery",),
}
"""The names under which a ``split`` column may speak of each role."""


@dataclass(frozen=True)
class Split:
    """The parts of a set of pairs: learned from, chosen by, and asked only at the very end.

    ``gallery`` holds pairs that are searched in but neither learned from nor asked.
    """

    train: Dataset
    validation: Dataset
    query: Dataset
    gallery: Dataset

    def ids(self) -> dict[str, list[str]]:
        """The ids of each part, as a trained encoder remembers them."""
        return {role: getattr(self, role).ids for role in ROLES}


def split(data: Dataset, *, validation: float = 0.1, query: float = 0.1, seed: int = 0) -> Split:
    """Divide pairs into train, validation and query.

    Where items name their split (see ROLES) they are obeyed; a part that nobody names is taken from
    the training items by ``validation`` and ``query`` (shares). Items of equal text stay together,
    and the choice depends on ids and ``seed`` only, not on the order of the items. Raises DataError
    if fewer than 8 pairs are left to learn from.
    """
    for name, share in (("validation", validation), ("query", query)):
        if not 0 <= share < 0.5:
            raise ConfigError(f"{name} share is {share}, expected between 0 and 0.5")
    named = {alias: role for role, aliases in ROLES.items() for alias in aliases}
    roles = {item.id: named.get((item.split or "").strip().lower()) for item in data}
    groups = {item.id: " ".join((item.text or item.id).lower().split()) for item in data}
    for role, share in (("query", query), ("validation", validation)):
        if role in roles.values():
            continue
        free = sorted({groups[id_] for id_, now in roles.items() if now in (None, "train")})
        chosen = set(first_share(free, share, f"{role} {seed}"))
        for id_, now in roles.items():
            if now in (None, "train") and groups[id_] in chosen:
                roles[id_] = role
    parts = {
        role: data.keep(lambda item, role=role: (roles[item.id] or "train") == role)  # type: ignore[misc]
        for role in ROLES
    }
    if len(parts["train"]) < 8:
        raise DataError(
            f"{data.name} leaves {len(parts['train'])} pairs of picture and text to learn from, "
            "expected at least 8"
            + ("; " + "; ".join(data.problems.lines()) if data.problems else "")
        )
    return Split(**parts)
