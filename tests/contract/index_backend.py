"""Backend of the contract suite: creates, reopens and drops indexes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings

from xmodal.index.contract import Index, open_index


class Backend:
    """Creates and reopens indexes at addresses that ``new_address`` returns.

    ``drop``: removes the index at an address. ``examples``: of property-based tests.
    ``weighs_all``: whether the first stage compares all documents by weights; else it orders a
    larger window of documents by Hamming distance again.
    """

    def __init__(
        self,
        new_address: Callable[[], str],
        drop: Callable[[str], None] | None = None,
        examples: int = 40,
        *,
        weighs_all: bool = True,
    ) -> None:
        self.weighs_all = weighs_all
        self.new_address = new_address
        self.settings = settings(
            deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
        )
        self._drop = drop
        self._open: list[tuple[Index, str]] = []

    def make(self, bits: int, fingerprint: str | None = None) -> Index:
        """Return a new empty index at a new address."""
        address = self.new_address()
        index = open_index(address, bits=bits, fingerprint=fingerprint, create=True)
        self._open.append((index, address))
        return index

    def address(self, index: Index) -> str:
        """Return the address of an open index."""
        return next(address for opened, address in self._open if opened is index)

    def reopen(
        self, index: Index, *, bits: int | None = None, fingerprint: str | None = None
    ) -> Index:
        """Close an index and open its address, expecting ``bits`` and ``fingerprint``."""
        address = self.address(index)
        self.release(index)
        reopened = open_index(address, bits=bits, fingerprint=fingerprint)
        self._open.append((reopened, address))
        return reopened

    def close(self, index: Index) -> None:
        """Close an index and drop it."""
        address = self.address(index)
        self.release(index)
        if self._drop is not None:
            self._drop(address)

    def release(self, index: Index) -> None:
        """Close an index that may be opened again."""
        self._open = [entry for entry in self._open if entry[0] is not index]
        index.close()

    def close_all(self) -> None:
        """Close and drop all open indexes."""
        for index, _ in list(self._open):
            self.close(index)
