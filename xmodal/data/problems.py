"""Problems of the input, counted and named by kind."""

from __future__ import annotations

from collections import Counter

from xmodal.errors import one_line

MAX_NAMES = 1000
"""Names of one kind that :class:`Problems` keeps."""
MAX_NAME = 200
"""Characters of a name in the lines of :meth:`Problems.summary_lines`."""


class Problems:
    """Unusable input, recorded by kind while the rest is processed.

    A kind is a short text, for example "picture missing"; each record of a kind has a name, for
    example that of a file or of a line. The first ``MAX_NAMES`` names of a kind are kept; the
    others are counted.
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, name: object) -> None:
        """Record one problem, for example ``add("picture missing", "a.jpg")``."""
        self._counts[kind] += 1
        names = self._names.setdefault(kind, [])
        if len(names) < MAX_NAMES:
            names.append(str(name))

    def extend(self, other: Problems) -> None:
        """Record all problems of ``other``."""
        self._counts.update(other._counts)
        for kind, names in other._names.items():
            own = self._names.setdefault(kind, [])
            own.extend(names[: MAX_NAMES - len(own)])

    def copy(self) -> Problems:
        """Return an object of its own with the same records."""
        copied = Problems()
        copied.extend(self)
        return copied

    def names(self, kind: str) -> list[str]:
        """Return the names recorded under a kind, at most ``MAX_NAMES``."""
        return list(self._names.get(kind, []))

    def count_by_kind(self) -> dict[str, int]:
        """Return the number of records of each kind."""
        return dict(self._counts)

    def summary_lines(self, max_names: int = 3) -> list[str]:
        """Return one line for each kind: count, kind, and the first ``max_names`` names."""
        lines = []
        for kind, names in self._names.items():
            count = self._counts[kind]
            more = f", and {count - max_names:,} more" if count > max_names else ""
            shown = ", ".join(map(_shortened, names[:max_names]))
            lines.append(one_line(f"{count:,} x {kind}: {shown}{more}"))
        return lines

    def __len__(self) -> int:
        """Return the number of records of all kinds."""
        return self._counts.total()


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
