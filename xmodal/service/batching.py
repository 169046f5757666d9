"""Micro-batching: concurrent calls are executed as one batch.

No batching delay: calls that arrive while a batch runs form the next batch, and a call to an idle
Batcher starts at once, as a batch of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.service.downloads import PictureDownloads
from xmodal.service.image_input import decode_image
from xmodal.service.input_threads import LARGE_BYTES, InputThreads
from xmodal.service.settings import Settings
from xmodal.service.tracing import span
from xmodal.web.address import is_address

In = TypeVar("In")
Out = TypeVar("Out")
_Call: TypeAlias = tuple[In, asyncio.Future[Out], Context]


class Batcher(Generic[In, Out]):
    """Executes single calls in batches of at most ``max_batch_size``.

    ``function`` takes a list of inputs and returns one result for each, in order. It runs in one of
    ``workers`` threads, which call ``initializer`` first. A result that is an exception is raised
    by the call that it belongs to. If ``function`` raises, the inputs of the batch are retried one
    by one, so that one input cannot fail the others. ``on_batch`` is called with the size of each
    batch. ``name`` is the name of the calls in traces; spans within a batch belong to the trace of
    its first call.
    """

    def __init__(
        self,
        function: Callable[[Sequence[In]], Sequence[Out | Exception]],
        *,
        max_batch_size: int,
        workers: int = 1,
        initializer: Callable[[], None] = lambda: None,
        on_batch: Callable[[int], None] = lambda size: None,
        name: str = "batch",
    ) -> None:
        self._name = name
        self._function, self._on_batch = function, on_batch
        self._max_batch_size = max_batch_size
        self._idle_workers = workers
        self._threads = ThreadPoolExecutor(
            workers, thread_name_prefix="batch", initializer=initializer
        )
        self._queue: deque[_Call[In, Out]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, value: In) -> Out:
        """The result for one input."""
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        with span(self._name):
            self._queue.append((value, future, copy_context()))
            self._start()
            return await future

    @property
    def waiting(self) -> int:
        """Number of inputs that are in no batch yet."""
        return len(self._queue)

    def close(self) -> None:
        """Wait for running batches and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        while self._idle_workers and self._queue:
            batch: list[_Call[In, Out]] = []
            while self._queue and len(batch) < self._max_batch_size:
                call = self._queue.popleft()
                if not call[1].done():  # a cancelled call is dropped
                    batch.append(call)
            if not batch:
                return
            self._idle_workers -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[_Call[In, Out]]) -> None:
        loop = asyncio.get_running_loop()
        self._on_batch(len(batch))
        try:
            inputs = [value for value, _, _ in batch]
            results = await loop.run_in_executor(
                self._threads, batch[0][2].run, self._execute, inputs
            )
            for (_, future, _), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except BaseException as error:  # the executor is shut down: end the waiting calls
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            self._idle_workers += 1
            self._start()

    def _execute(self, inputs: Sequence[In]) -> Sequence[Out | Exception]:
        try:
            return self._function(inputs)
        except Exception as error:
            if len(inputs) == 1:
                return [error]
            return [result for value in inputs for result in self._execute([value])]


class BatchedEncoder:
    """Encodes single texts and images; concurrent calls are encoded in one batch.

    ``on_batch`` is called with the kind of input ("texts" or "pictures") and the batch size,
    ``on_download`` with the result of each download of a picture.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: Settings,
        inputs: InputThreads,
        on_batch: Callable[[str, int], None],
        on_download: Callable[[str], None],
    ) -> None:
        self._max_pixels, self._inputs = settings.max_pixels, inputs
        self._downloads = PictureDownloads(settings, on_download)

        def encode_texts(texts: Sequence[str]) -> list[BinaryCodes]:
            return _rows(encoder.encode_texts(list(texts)))

        def encode_images(images: Sequence[bytes]) -> list[BinaryCodes]:
            return _rows(encoder.encode_images(list(images)))

        def text_batcher(max_batch_size: int) -> Batcher[str, BinaryCodes]:
            return Batcher(
                encode_texts,
                max_batch_size=max_batch_size,
                on_batch=lambda size: on_batch("texts", size),
                name="encode texts",
            )

        self.text = text_batcher(settings.max_batch_size)
        self.large_text = text_batcher(max(1, settings.max_batch_size // 4))

        def image_batcher() -> Batcher[bytes, BinaryCodes]:
            return Batcher(
                encode_images,
                max_batch_size=max(1, settings.max_batch_size // 4),
                on_batch=lambda size: on_batch("pictures", size),
                name="encode pictures",
            )

        self._image, self._large_image = image_batcher(), image_batcher()

    async def image(self, text: str) -> BinaryCodes:
        """The code of an image in base64, or at an address. Raises as :meth:`picture`."""
        async with self.picture(text) as data:
            return await (self._large_image if len(data) > LARGE_BYTES else self._image)(data)

    async def one_of_many_images(self, text: str) -> BinaryCodes:
        """The same, of many images of one request, which do not delay those of others."""
        async with self.picture(text) as data:
            return await self._large_image(data)

    @asynccontextmanager
    async def picture(self, text: str) -> AsyncIterator[bytes]:
        """The image file in base64, or at an address, for the time of the block.

        Raises DataError, and RequestError if the host of an address fails.
        """
        if is_address(text):
            async with self._downloads.picture(text) as data:
                yield data
        else:
            yield await self._inputs.run(len(text), partial(decode_image, text, self._max_pixels))

    def waiting(self) -> dict[str, Callable[[], int]]:
        """Functions that return the number of waiting inputs, by kind of input."""
        return {
            "texts": lambda: self.text.waiting + self.large_text.waiting,
            "pictures": lambda: self._image.waiting + self._large_image.waiting,
        }

    def close(self) -> None:
        """Wait for running batches and end the threads."""
        self._downloads.close()
        self.text.close()
        self.large_text.close()
        self._image.close()
        self._large_image.close()


async def gather(work: Iterable[Awaitable[Out]]) -> list[Out | BaseException]:
    """Results, or errors in their places; waits for all of them."""
    return await asyncio.gather(*work, return_exceptions=True)


def _rows(codes: BinaryCodes) -> list[BinaryCodes]:
    return [codes[row : row + 1] for row in range(len(codes))]
