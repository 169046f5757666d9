"""Reloads a local index that another process saved while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from xmodal.errors import XmodalError
from xmodal.index.contract import Index

log = logging.getLogger(__name__)


@runtime_checkable
class Reloadable(Protocol):
    """An index that is held in memory and can detect that its files changed."""

    def reload_if_changed(self) -> Index | None:
        """Return the index that is on disk now, or None if unchanged.

        Raises XmodalError or OSError, once for each change, if the new files cannot be used.
        """


async def watch_index(
    index: Index, warm_up: Callable[[Index], object], interval: float
) -> AsyncIterator[Index]:
    """Yields each new version of an index; its files are checked every ``interval`` seconds.

    ``warm_up`` is called with a new version, in a thread, before it is yielded. A version that
    cannot be used (other encoder, damaged, deleted) is logged and skipped.
    """

    def check(current: Reloadable) -> Index | None:
        changed = current.reload_if_changed()
        if changed is not None:
            warm_up(changed)
        return changed

    while isinstance(index, Reloadable):
        await asyncio.sleep(interval)
        try:
            changed = await asyncio.to_thread(check, index)
        except (XmodalError, OSError) as error:
            log.warning("cannot reload the index, the previous version stays in use: %s", error)
            continue
        if changed is not None:
            index = changed
            yield index
