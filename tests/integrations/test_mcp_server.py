"""The MCP server, by the official client: in this process, and over the pipes of ``xmodal mcp``."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.integrations import mcp_server
from xmodal.integrations.mcp_server import create_server, shortened_fields
from xmodal.retrieval.retriever import Retriever

TEXT = "a red circle on the left"
Call = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def retriever(encoder: Encoder, index_path: Path) -> Retriever:
    return Retriever(encoder, open_index(index_path))


def conversation(
    retriever: Retriever,
    make_calls: Callable[[Call], Awaitable[None]],
    pictures: Path | None = None,
) -> None:
    """Run ``make_calls(call)``; ``call(tool, **arguments)`` returns the answer of a tool."""

    async def run() -> None:
        async with Client(create_server(retriever, pictures)) as client:
            await make_calls(lambda tool, **arguments: client.call_tool(tool, arguments))

    asyncio.run(run())


def ids(answer: Any) -> list[str]:
    assert not answer.is_error, answer.content
    return [hit["id"] for hit in answer.structured_content["hits"]]


def error(answer: Any) -> str:
    assert answer.is_error
    (content,) = answer.content
    return str(content.text)


def test_the_command_serves_a_client_over_pipes(
    retriever: Retriever, model: Path, index_path: Path, tmp_path: Path
) -> None:
    program = "from xmodal.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", program, "mcp", "--index", str(index_path), "--model", str(model)],
        env=dict(environment),
    )

    async def make_calls() -> None:
        with (tmp_path / "stderr").open("w") as messages:
            async with Client(stdio_client(server, errlog=messages)) as client:
                tools = (await client.list_tools()).tools
                assert {tool.name for tool in tools} == {
                    *("search_by_text", "search_by_picture", "more_like"),
                    *("get_document", "list_fields"),
                }
                for tool in tools:
                    assert tool.description and tool.output_schema
                    assert tool.annotations is not None and tool.annotations.read_only_hint
                answer = await client.call_tool("search_by_text", {"text": TEXT, "k": 7})
                assert ids(answer) == [hit.id for hit in retriever.search(text=TEXT, k=7)]

    asyncio.run(make_calls())
    assert "150 documents in" in (tmp_path / "stderr").read_text()


def test_answers_equal_those_of_search(retriever: Retriever, photos_folder: Path) -> None:
    picture = next(photos_folder.rglob("*.png"))
    encoded = base64.b64encode(picture.read_bytes()).decode()

    def expected(**query: Any) -> list[str]:
        return [hit.id for hit in retriever.search(**query)]

    async def make_calls(call: Call) -> None:
        where = {"colour": ["red", "blue"], "shape": {"not": "circle"}}
        answer = await call("search_by_text", text=TEXT, where=where, k=5)
        assert ids(answer) == expected(text=TEXT, where=where, k=5)
        following = answer.structured_content["next_offset"]
        answer = await call("search_by_text", text=TEXT, where=where, k=5, offset=following)
        assert ids(answer) == expected(text=TEXT, where=where, k=5, offset=5)
        by_path = await call("search_by_picture", path=picture.name, target="text")
        by_bytes = await call("search_by_picture", base64=encoded, target="text")
        assert ids(by_path) == ids(by_bytes) == expected(image=picture, target="text")
        both = await call("search_by_picture", base64=encoded, text="blue")
        assert ids(both) == expected(image=picture, text="blue", target="image")
        (hit,) = retriever.search(text=TEXT, k=1)
        answer = await call("more_like", id=hit.id)
        assert ids(answer) == expected(like=hit.id, target="image")
        document = (await call("get_document", id=hit.id)).structured_content
        assert document == {"id": hit.id, "fields": dict(hit.fields), "shortened": False}
        about = (await call("list_fields")).structured_content
        facets = retriever.index.facets()
        assert {one["name"]: one["values"] for one in about["fields"]} == {
            name: dict(values) for name, values in facets.items()
        }
        assert about["documents"] == len(retriever.index)
        last = await call("search_by_text", text=TEXT, min_confidence=1.0)
        assert ids(last) == [] and last.structured_content["next_offset"] is None

    conversation(retriever, make_calls, picture.parent)


def test_mistakes_are_answers(
    retriever: Retriever, photos_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = next(photos_folder.rglob("*.png"))
    (tmp_path / "allowed").mkdir()
    (tmp_path / "outside.png").write_bytes(picture.read_bytes())
    (tmp_path / "allowed" / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "allowed" / "no.png").write_text("no picture")
    (tmp_path / "allowed" / "large.png").write_bytes(picture.read_bytes())

    async def make_calls(call: Call) -> None:
        for path in ("../outside.png", str(tmp_path / "outside.png"), "link.png", "none.png"):
            message = error(await call("search_by_picture", path=path))
            assert message.endswith(f"there is no picture {path!r} below the allowed folder")
        assert "not a picture" in error(await call("search_by_picture", path="no.png"))
        assert "not base64" in error(await call("search_by_picture", base64="?"))
        assert "either path or base64" in error(await call("search_by_picture"))
        message = error(await call("search_by_text", text=TEXT, where={"nothing": 1}))
        assert "no document has the field 'nothing'" in message
        assert "no document" in error(await call("get_document", id="nothing"))
        assert "no document" in error(await call("more_like", id="nothing"))
        for wrong in ({"k": 51}, {"k": 0}, {"text": ""}, {"where": {"a": []}}):
            assert "validation error" in error(
                await call("search_by_text", **{"text": "a"} | wrong)
            )
        monkeypatch.setattr(mcp_server, "MAX_PICTURE_BYTES", 10)
        assert "more than 10 bytes" in error(await call("search_by_picture", path="large.png"))

    async def without_folder(call: Call) -> None:
        assert "--pictures" in error(await call("search_by_picture", path="a.png"))

    conversation(retriever, make_calls, tmp_path / "allowed")
    conversation(retriever, without_folder)


def test_fields_are_shortened() -> None:
    fields = {"a": "short", "text": "x" * 50, "list": ["y"] * 50, "n": 1}
    assert shortened_fields(fields, 1000) == (fields, False)
    kept, cut = shortened_fields(fields, 30)
    assert cut and kept == {"a": "short", "text": "x" * 20 + "..."}
    assert len(json.dumps(kept)) < 100
