"""An index in a folder that another process saves anew is taken in while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from xmodal.errors import XmodalError
from xmodal.index import Index

log = logging.getLogger(__name__)


@runtime_checkable
class Renews(Protocol):
    """An index that is read once, and can be asked whether it has changed since."""

    def renewed(self) -> Index | None:
        """The index as it is kept now; None if nothing has changed.

        Raises, once for each change, if what it became cannot be used.
        """


async def renewals(
    index: Index, warm: Callable[[Index], object], every: float
) -> AsyncIterator[Index]:
    """Each later state of an index, looked for ``every`` so many seconds.

    ``warm`` is called with it in a thread before anybody else has it. A state that cannot be used
    (another encoder's, damaged, removed) is told to the log and passed over.
    """

    def look(known: Renews) -> Index | None:
        now = known.renewed()
        if now is not None:
            warm(now)
        return now

    while isinstance(index, Renews):
        await asyncio.sleep(every)
        try:
            now = await asyncio.to_thread(look, index)
        except (XmodalError, OSError) as error:
            log.warning("the index goes on as it was, for it cannot be read again: %s", error)
            continue
        if now is not None:
            index = now
            yield index
