"""What the contract suite needs of a backend: new indexes, and the same ones opened again."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings

from xmodal.index.contract import Index, open_index


class Backend:
    """Makes and reopens indexes of one kind, knowing only how to name a new address."""

    def __init__(
        self,
        new_address: Callable[[], str],
        drop: Callable[[str], None] | None = None,
        examples: int = 40,
    ) -> None:
        self.new_address = new_address
        self.settings = settings(
            deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
        )
        self._drop = drop
        self._open: list[tuple[Index, str]] = []

    def make(self, bits: int, fingerprint: str | None = None) -> Index:
        """A new empty index at a new address."""
        address = self.new_address()
        index = open_index(address, bits=bits, fingerprint=fingerprint, create=True)
        self._open.append((index, address))
        return index

    def address(self, index: Index) -> str:
        """Where an open index is kept."""
        return next(address for known, address in self._open if known is index)

    def reopen(
        self, index: Index, *, bits: int | None = None, fingerprint: str | None = None
    ) -> Index:
        """Close it and open what is at its address, expecting ``bits`` and ``fingerprint``."""
        address = self.address(index)
        self.let_go(index)
        again = open_index(address, bits=bits, fingerprint=fingerprint)
        self._open.append((again, address))
        return again

    def close(self, index: Index) -> None:
        """Close one that is not needed again."""
        address = self.address(index)
        self.let_go(index)
        if self._drop is not None:
            self._drop(address)

    def let_go(self, index: Index) -> None:
        """Close one whose address will be opened again."""
        self._open = [one for one in self._open if one[0] is not index]
        index.close()

    def close_all(self) -> None:
        """Close what a test left open."""
        for index, _ in list(self._open):
            self.close(index)
