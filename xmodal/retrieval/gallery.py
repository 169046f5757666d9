"""Gallery of queries and their hits: one self-contained HTML page, or one PNG picture."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from xmodal.data.images import Source, image_size, load_image
from xmodal.errors import ConfigError, DataError
from xmodal.index.contract import Hit
from xmodal.retrieval.reasons import why
from xmodal.retrieval.results import MAX_SHOWN, MAX_TEXT, Results, shortened
from xmodal.writing import atomic_write, check_target, write_text

THUMB = 160
STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
"""
HITS_STYLE = """
.xmodal h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; display: flex; gap: .8rem;
             align-items: center; }
.xmodal ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem;
             list-style: none; padding: 0; margin: 0; }
.xmodal li { border: 1px solid #8884; border-radius: .5rem; padding: .5rem; font-size: .85rem;
             margin: 0; overflow-wrap: anywhere; }
.xmodal img { width: 100%; border-radius: .3rem; display: block; margin: 0; }
.xmodal h2 img { width: 4rem; }
.xmodal small { opacity: .7; display: block; margin-top: .3rem; }
"""


def write_gallery(path: str | Path, results: Sequence[Results], title: str = "xmodal") -> None:
    """Write a gallery as HTML or PNG, selected by the suffix of ``path``.

    Raises ConfigError for another suffix.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".html", ".png"):
        raise ConfigError(f"a gallery ends in .html or .png, found {target.name!r}")
    check_target(target)
    if suffix == ".html":
        write_text(target, _page(results, title))
    else:
        _save_png(_sheet(results, title), target)


def unreadable_pictures(results: Results) -> list[Path]:
    """Return the pictures of the hits that are missing or no pictures, by their headers."""
    pictures = (result for hit in results.hits if (result := results.shown(hit)[0]) is not None)
    return [path for path in dict.fromkeys(pictures) if not _has_size(path)]


def _has_size(path: Path) -> bool:
    try:
        return bool(image_size(path))
    except DataError:
        return False


def figures_of(hit: Hit) -> tuple[str, str]:
    """Return two lines of text: distance and confidence of a hit, and why it was found.

    The second one is empty for a search by codes alone.
    """
    confidence = "" if hit.confidence is None else f", confidence {hit.confidence:.0%}"
    return f"distance {hit.distance}{confidence}", "" if hit.ranks is None else why(hit)


def _page(results: Sequence[Results], title: str) -> str:
    """Return the HTML page."""
    name = html.escape(title)
    sections = "".join(_section(result, result.hits) for result in results)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{HITS_STYLE}</style><h1>{name}</h1>"
        f'<div class="xmodal">{sections}</div></html>\n'
    )


def results_to_html(results: Results) -> str:
    """Return the first MAX_SHOWN hits as HTML for a notebook: thumbnails as data, no links.

    At most MAX_TEXT characters of a text are shown.
    """
    more = len(results) - MAX_SHOWN
    rest = f"<p>{more:,} more</p>" if more > 0 else ""
    section = _section(results, results.hits[:MAX_SHOWN], MAX_TEXT)
    return f'<style>{HITS_STYLE}</style><div class="xmodal">{section}{rest}</div>'


def _section(results: Results, hits: Sequence[Hit], length: int | None = None) -> str:
    """Return the query and the hits as HTML; ``length``: characters of a text, None for all."""

    def text_to_html(text: str) -> str:
        return html.escape(text if length is None else shortened(text, length))

    query = results.query
    picture = "" if isinstance(query, str) else _inline(query, results.title)
    words = f"“{query}”" if isinstance(query, str) else results.title
    parts = [f"<h2>{picture}{text_to_html(words)}</h2>"]
    if not hits:
        return f"{parts[0]}<p>no match</p>"
    for hit in hits:
        file, text = results.shown(hit)
        picture = _inline(file, file.name) if file else ""
        figures = "<br>".join(text_to_html(line) for line in figures_of(hit) if line)
        parts.append(f"<li>{picture}{text_to_html(text)}<small>{figures}</small></li>")
    return f"{parts[0]}<ol>{''.join(parts[1:])}</ol>"


def write_sheet(path: Path, rows: Sequence[npt.NDArray[np.uint8]], title: str) -> None:
    """Write small pictures as one PNG at twice their size, one line per element of ``rows``.

    Each element is (m, height, height, 3) uint8: m square RGB pictures.
    """
    pad, top = 4, 36
    edge = 2 * max((row.shape[1] for row in rows), default=32)
    columns = max((len(row) for row in rows), default=0)
    size = (pad + max(columns, 3) * (edge + pad), top + len(rows) * (edge + pad))
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).text((pad, 8), title, fill="black", font=ImageFont.load_default(14))
    for line, row in enumerate(rows):
        for column, square in enumerate(row):
            picture = Image.fromarray(square).resize((edge, edge), Image.Resampling.NEAREST)
            sheet.paste(picture, (pad + column * (edge + pad), top + line * (edge + pad)))
    _save_png(sheet, path)


def _save_png(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as file:
        picture.save(file, "PNG")


def _inline(picture: Source, name: str) -> str:
    """Return an ``img`` element with the thumbnail as data, or a note if it cannot be read."""
    thumb = thumbnail(picture, THUMB)
    if thumb is None:
        return f"<small>{html.escape(name)} cannot be shown</small>"
    buffer = io.BytesIO()
    thumb.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'


def thumbnail(picture: Source, size: int) -> Image.Image | None:
    """Return a picture whose longer side has ``size`` pixels, None for an unusable one."""
    try:
        image = load_image(picture, size)
    except DataError:
        return None
    return ImageOps.contain(image, (size, size), Image.Resampling.LANCZOS)


def _sheet(results: Sequence[Results], title: str) -> Image.Image:
    """Return the picture: one row per query, with the query on the left and its hits beside it."""
    columns = max((len(result.hits) for result in results), default=0)
    pad, line = 12, 68
    width = 260 + max(columns, 3) * (THUMB + pad) + pad
    height = 48 + len(results) * (THUMB + line + pad)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    big, small = ImageFont.load_default(18), ImageFont.load_default(12)
    draw.text((pad, 14), title, fill="black", font=big)
    for row, result in enumerate(results):
        top = 48 + row * (THUMB + line + pad)
        if isinstance(result.query, str):
            draw.multiline_text((pad, top + 50), _wrap(result.query, 26, 4), fill="black", font=big)
        else:
            picture = thumbnail(result.query, THUMB)
            if picture:
                sheet.paste(picture, (pad, top))
            draw.text((pad, top + THUMB + 4), result.title, fill="black", font=small)
        if not result.hits:
            draw.text((260, top + 60), "no match", fill="gray", font=big)
        for column, hit in enumerate(result.hits):
            left = 260 + column * (THUMB + pad)
            file, text = result.shown(hit)
            picture = thumbnail(file, THUMB) if file else None
            if picture:
                sheet.paste(picture, (left, top))
            lines = _wrap(text, 28, 2)
            draw.multiline_text((left, top + THUMB + 2), lines, fill="black", font=small)
            figures, reason = figures_of(hit)
            draw.text((left, top + THUMB + 34), figures, fill="gray", font=small)
            draw.text((left, top + THUMB + 50), _wrap(reason, 28, 1), fill="gray", font=small)
    return sheet


def _wrap(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
