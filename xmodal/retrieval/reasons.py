"""Why a hit was found: its ranks, and the words that it has."""

from __future__ import annotations

from xmodal.index.contract import Hit


def why(hit: Hit) -> str:
    """Return the ranks of a hit by codes and by words, and the words that it has.

    For example "codes 3, words 1: red circle"; "codes" for a search by codes alone.
    """
    if hit.ranks is None:
        return "codes"
    parts = [f"{name} {rank}" for name, rank in hit.ranks.items() if rank is not None]
    return ", ".join(parts) + (f": {' '.join(hit.matched)}" if hit.matched else "")
