"""Pictures in a terminal: by the protocols of kitty and iTerm2, else as half blocks of colours.

A picture is decoded, reduced and encoded again, so that no byte of its file is printed.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from xmodal.cli.output import print_picture
from xmodal.retrieval.gallery import thumbnail

Protocol = Literal["kitty", "iterm", "blocks"]
ROWS = 8
"""Height of a picture in lines."""
PIXELS = 256
"""Longer side of a picture that is sent to the terminal."""
CHUNK = 4096
"""Characters of an escape sequence of kitty."""
HALF_BLOCK = "▀"


def protocol(environment: Mapping[str, str] = os.environ) -> Protocol | None:
    """Return the protocol of the terminal of standard output, None for a pipe or a file.

    Terminals are known by their variables. Inside of tmux or screen, which do not pass pictures on,
    and in unknown terminals it is half blocks.
    """
    if not sys.stdout.isatty() or environment.get("TERM") == "dumb":
        return None
    if environment.get("TMUX") or environment.get("STY"):
        return "blocks"
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "blocks"


def print_preview(path: Path, by: Protocol) -> None:
    """Print a picture on standard output, which is a terminal; nothing for an unusable picture."""
    picture = thumbnail(path, PIXELS)
    if picture is None:
        return
    if by == "blocks":
        print_picture(half_blocks(picture))
    else:
        print_picture(kitty_sequence(picture) if by == "kitty" else iterm_sequence(picture))


def kitty_sequence(picture: Image.Image) -> str:
    """Return the escape sequences of kitty's graphics protocol; the terminal sends no answer."""
    data = _png(picture)
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    keys = [f"a=T,f=100,q=2,r={ROWS},"] + [""] * (len(parts) - 1)
    last = len(parts) - 1
    return "".join(
        f"\x1b_G{key}m={int(number < last)};{part}\x1b\\"
        for number, (key, part) in enumerate(zip(keys, parts, strict=True))
    )


def iterm_sequence(picture: Image.Image) -> str:
    """Return the escape sequence of iTerm2's inline pictures."""
    return f"\x1b]1337;File=inline=1;height={ROWS};preserveAspectRatio=1:{_png(picture)}\x07"


def half_blocks(picture: Image.Image) -> Text:
    """Return a picture as characters; each one has the colours of two pixels."""
    height = 2 * ROWS
    width = max(1, round(height * picture.width / picture.height))
    pixels = picture.convert("RGB").resize((min(width, 4 * height), height))
    text = Text(end="")
    for y in range(0, height, 2):
        for x in range(pixels.width):
            upper, lower = (pixels.getpixel((x, row)) for row in (y, y + 1))
            assert isinstance(upper, tuple) and isinstance(lower, tuple)
            style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
            text.append(HALF_BLOCK, style)
        text.append("\n")
    return text


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
