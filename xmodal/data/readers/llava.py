"""Conversations about pictures, as in the files of LLaVA: the answers are captions.

A conversation is a list of turns: {"from": "human" or "gpt", "value": text}, or in the form of chat
templates {"role": "user" or "assistant", "content": text or [{"type": "text", "text": text}]}.
Liu et al., "Visual instruction tuning", NeurIPS 2023 (blip_laion_cc_sbu_558k.json and others).
"""

from __future__ import annotations

from typing import Any

ANSWERING = frozenset(("gpt", "assistant", "model", "bot", "chatgpt"))
"""Names of the one who answers; turns of others (human, user, system) are no captions."""
_FORMS = (("from", "value"), ("role", "content"))


def is_conversation(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list is a conversation, by its first turn."""
    first = values[0] if values else None
    return isinstance(first, dict) and any(
        isinstance(first.get(name), str) and content in first for name, content in _FORMS
    )


def answers(turns: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Return the contents of the turns that answer; None for a turn that is not understood."""
    found: list[Any] = []
    for turn in turns:
        form = next(
            (form for form in _FORMS if isinstance(turn, dict) and form[0] in turn), (None, None)
        )
        name, content = (None, None) if form[0] is None else (turn[form[0]], turn.get(form[1]))
        if not isinstance(name, str):
            found.append(None)
        elif name.lower() in ANSWERING:
            found += _texts(content)
    return found


def _texts(content: Any) -> list[Any]:
    """Return the texts of a content, which may be a list of parts."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return [
        text.replace("<image>", " ") if isinstance(text, str) else text
        for text in texts
        if text is not None
    ]
