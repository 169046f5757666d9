"""Set of texts that takes 16 to 32 bytes a text, for ids and names of millions of items."""

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
        value = hash(text) & _MASK or 1  # as _place does, but without a call
        slots, last = self._slots, len(self._slots) - 1
        place = value & last
        while found := slots[place]:
            if found == value:
                return False
            place = (place + 1) & last
        slots[place] = value
        self._number += 1
        if self._number * 2 >= len(self._slots):
            self._grow()
        return True

    def __contains__(self, text: str) -> bool:
        return bool(self._slots[self._place(text)[0]])

    def _place(self, text: str) -> tuple[int, int]:
        """Return the slot of a text, or the empty slot where it belongs, and its hash."""
        value = hash(text) & _MASK or 1  # 0 is an empty slot
        slots, last = self._slots, len(self._slots) - 1
        place = value & last
        while (found := slots[place]) and found != value:
            place = (place + 1) & last
        return place, value

    def _grow(self) -> None:
        larger = array("Q", bytes(2 * len(self._slots) * self._slots.itemsize))
        last = len(larger) - 1
        for value in filter(None, self._slots):
            place = value & last
            while larger[place]:
                place = (place + 1) & last
            larger[place] = value
        self._slots = larger
