"""Set of texts that takes 16 bytes a text, for ids and names of millions of items."""

from __future__ import annotations

from array import array

_MASK = 2**64 - 1


class SeenTexts:
    """Texts that were added, by their 64-bit hashes (open addressing with linear probing).

    Two different texts are equal to it with a probability of 2 ** -64: among a million texts, any
    two are with a probability of 3e-8.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        value = hash(text) & _MASK or 1  # 0 is an empty slot
        if not _insert(self._slots, value):
            return False
        self._number += 1
        if self._number * 2 > len(self._slots):
            self._grow()
        return True

    def __contains__(self, text: str) -> bool:
        value = hash(text) & _MASK or 1
        return self._slots[_place(self._slots, value)] == value

    def _grow(self) -> None:
        larger = array("Q", bytes(len(self._slots) * self._slots.itemsize * 2))
        for value in self._slots:
            if value:
                _insert(larger, value)
        self._slots = larger


def _place(slots: array[int], value: int) -> int:
    """Return the slot of a value, or the empty slot where it belongs."""
    last = len(slots) - 1
    place = value & last
    while (found := slots[place]) and found != value:
        place = (place + 1) & last
    return place


def _insert(slots: array[int], value: int) -> bool:
    place = _place(slots, value)
    if slots[place]:
        return False
    slots[place] = value
    return True
