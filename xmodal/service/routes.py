"""What a request asks for: a checked body becomes work for the encoder and the index."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from starlette.requests import ClientDisconnect, Request

from xmodal.codes import BinaryCodes
from xmodal.encoder import Encoder
from xmodal.errors import DataError
from xmodal.index import Modality
from xmodal.service import schema as schemas
from xmodal.service.batching import Batcher
from xmodal.service.errors import Refusal
from xmodal.service.searching import Question
from xmodal.service.settings import Settings
from xmodal.service.thumbnails import received

DRAINED = 4
"""A body beyond the limit is still read up to so many times the limit, so that its sender hears
why it is refused."""
ABSENT = (None, "", "null")
"""How OpenSearch's connectors say that there is no text or no picture."""


async def body(request: Request, schema: str, settings: Settings, threads: Executor) -> Any:
    """The JSON body of a request that fits a schema of openapi.json; parsed in ``threads``.

    Raises Refusal.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, f"the content type is {kind[:80]!r}, expected application/json")
    data = bytearray()
    read, most = 0, settings.body_bytes
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                read += len(chunk)
                if read <= most:
                    data += chunk
                elif read > DRAINED * most:
                    break
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {settings.body_seconds:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the body ended before its time") from None
    if read > most:
        raise Refusal(413, f"the body has more than {most:,} bytes, which is the limit")
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, schemas.read, schema, bytes(data))


class Encoding:
    """Codes of single texts and pictures; those that come together are encoded together."""

    def __init__(
        self, encoder: Encoder, settings: Settings, seen: Callable[[str, int], None]
    ) -> None:
        self._pixels = settings.pixels

        def texts(asked: Sequence[str]) -> list[BinaryCodes]:
            return _single(encoder.encode_texts(list(asked)))

        def pictures(asked: Sequence[bytes]) -> list[BinaryCodes]:
            return _single(encoder.encode_images(list(asked)))

        few = max(1, settings.together // 4)
        self.text = Batcher(texts, most=settings.together, seen=lambda size: seen("texts", size))
        self._picture = Batcher(pictures, most=few, seen=lambda size: seen("pictures", size))

    async def picture(self, text: str) -> BinaryCodes:
        """The code of a picture in base64. Raises DataError."""
        return await self._picture(await asyncio.to_thread(received, text, self._pixels))

    def close(self) -> None:
        """Let go of the threads."""
        self.text.close()
        self._picture.close()


async def question(asked: dict[str, Any], encoding: Encoding) -> Question:
    """What a body that fits ``Search`` looks for. Raises DataError for what cannot be encoded."""
    given: dict[str, Any] = {
        name: asked[name]
        for name in ("k", "where", "radius", "min_confidence", "words", "like")
        if asked.get(name) is not None
    }
    side: Modality | None = None
    if "text" in asked:
        side, given["code"] = "text", await encoding.text(asked["text"])
    elif "image" in asked:
        side, given["code"] = "image", await encoding.picture(asked["image"])
    return Question(
        target=asked.get("target", "image"),
        side=side,
        field_of_words=asked.get("field", "text"),
        **given,
    )


async def codes(asked: dict[str, Any], encoding: Encoding) -> list[str]:
    """The codes, in hexadecimal, of a body that fits ``Encode``."""
    if "texts" in asked:
        work = [encoding.text(one) for one in asked["texts"]]
    else:
        work = [encoding.picture(one) for one in asked["images"]]
    made = await asyncio.gather(*work, return_exceptions=True)
    name = "texts" if "texts" in asked else "images"
    for place, one in enumerate(made):
        if isinstance(one, DataError):
            raise DataError(f"{name}[{place}]: {one}")
        if isinstance(one, BaseException):
            raise one
    return [one.to_hex()[0] for one in made if isinstance(one, BinaryCodes)]


async def embedding(asked: dict[str, Any], encoding: Encoding) -> dict[str, Any]:
    """Codes as signed bytes, in each shape in which a connector may look for them.

    Raises Refusal if there is neither text nor picture.
    """
    text, image = asked.get("inputText"), asked.get("inputImage")
    if text in ABSENT and image in ABSENT:
        raise Refusal(422, "neither inputText nor inputImage says anything, expected one or both")
    work: dict[str, Awaitable[BinaryCodes]] = {}
    if text not in ABSENT:
        work["text_code"] = encoding.text(str(text))
    if image not in ABSENT:
        work["image_code"] = encoding.picture(str(image))
    made = await asyncio.gather(*work.values(), return_exceptions=True)
    told: dict[str, list[int] | None] = {"text_code": None, "image_code": None}
    for name, code in zip(work, made, strict=True):
        if isinstance(code, BaseException):
            raise code
        told[name] = code.to_signed()[0]
    one = told["image_code"] or told["text_code"]
    return {
        **told,
        "embedding": one,
        "embeddings": {"binary": [one]},
        "embeddingsByType": {"binary": one},
    }


def _single(codes: BinaryCodes) -> list[BinaryCodes]:
    return [codes[row : row + 1] for row in range(len(codes))]
