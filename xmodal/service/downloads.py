"""Downloads of the pictures that requests name by an address.

Requests and documents of others choose the addresses, so only listed hosts are requested, and a
response contains nothing of the host's answer: neither its body, headers, redirects nor IP address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from xmodal.errors import DataError
from xmodal.service.errors import RequestError
from xmodal.service.image_input import check_picture
from xmodal.service.settings import Settings
from xmodal.web.address import WebAddress, parse_web_address
from xmodal.web.failures import RequestFailed
from xmodal.web.fetch import fetch

log = logging.getLogger(__name__)

MAX_PICTURES = 16
"""Downloaded pictures in memory at the same time, from the request until they are encoded."""
PICTURES_PER_HOST = 8
"""Of these, from one host and port."""
MAX_ADDRESS_LENGTH = 2048
BUSY = (429, 503)
"""Statuses of a host that may answer later."""


class PictureDownloads:
    """Downloads pictures of listed hosts, in threads of its own.

    ``on_download`` is called with the result of each download: ok, refused or failed.
    """

    def __init__(self, settings: Settings, on_download: Callable[[str], None]) -> None:
        self._settings, self._on_download = settings, on_download
        self._pictures = asyncio.Semaphore(MAX_PICTURES)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(MAX_PICTURES, thread_name_prefix="download")

    @asynccontextmanager
    async def picture(self, text: str) -> AsyncIterator[bytes]:
        """Yield the picture file at an address; its memory is reserved until the end of the block.

        Raises DataError for an address that is not allowed or has no usable picture, and
        RequestError with status 502 or 503 if the host fails or is busy.
        """
        address = self._parse(text)
        of_host = self._hosts.setdefault(address.authority, asyncio.Semaphore(PICTURES_PER_HOST))
        async with of_host, self._pictures:
            loop = asyncio.get_running_loop()
            result = "failed"
            try:
                data = await loop.run_in_executor(self._threads, self._fetch, address)
                result = "ok"
            except DataError:
                result = "refused"
                raise
            finally:
                self._on_download(result)
            yield data

    def close(self) -> None:
        """Let running downloads end at their time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _parse(self, text: str) -> WebAddress:
        if self._settings.picture_hosts is None:
            raise DataError(
                "the picture is an address, and this service downloads none: send the file in "
                "base64, or see xmodal serve --allow-pictures-from"
            )
        if len(text) > MAX_ADDRESS_LENGTH:
            raise DataError(
                f"the address of the picture has {len(text):,} characters, expected at most "
                f"{MAX_ADDRESS_LENGTH:,}"
            )
        try:
            address = parse_web_address(text)
        except DataError as error:
            raise DataError(f"the picture: {error}") from None
        if address.user is not None:
            raise DataError("the address of the picture has a user or password, expected none")
        return address

    def _fetch(self, address: WebAddress) -> bytes:
        """Return the picture at an address. Runs in a thread."""
        settings = self._settings
        assert settings.picture_hosts is not None
        try:
            answer = fetch(
                address,
                settings.picture_hosts,
                seconds=settings.download_timeout,
                max_bytes=settings.max_body_bytes,
            )
        except DataError as error:
            raise DataError(f"the picture: {error}") from None
        except RequestFailed as error:
            log.warning("picture at %s: %.200r", address.authority, str(error))
            raise RequestError(
                502, f"no complete answer from {address.authority}: see the log of the service"
            ) from None
        if answer.status // 100 == 2:
            check_picture(answer.body, settings.max_pixels)
            return answer.body
        log.warning("picture at %s: status %d", address.authority, answer.status)
        if answer.status in BUSY:
            raise RequestError(503, f"{address.authority} is busy", {"Retry-After": "5"})
        if answer.status // 100 == 4:
            raise DataError(f"the picture: {address.authority} has none at that address")
        raise RequestError(502, f"{address.authority} failed: see the log of the service")
