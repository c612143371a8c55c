"""How wide a text is in a picture, as far as that can be known before somebody's browser has chosen a font."""

from __future__ import annotations

# Parts of the font's size, of DejaVu Sans: the widest of the fonts that a system shows by default.
_WIDTHS = {
    **dict.fromkeys("ijl'|", 0.28),
    **dict.fromkeys(" .,", 0.32),
    **dict.fromkeys("frt:;-!/\\()[]I", 0.4),
    **dict.fromkeys("mMWw@%", 0.99),
    **dict.fromkeys("…—→", 1.0),
}
_UPPER, _OTHER, _WIDE = 0.75, 0.64, 1.0  # capitals, what else is ASCII, everything else


def width(text: str, size: float) -> float:
    """How many pixels a text takes, at most, in a font of `size` pixels."""
    return size * sum(_WIDTHS.get(c) or (_UPPER if c.isupper() else _OTHER if c.isascii() else _WIDE) for c in text)


def fitted(text: str, room: float, size: float) -> str:
    """The text, cut off with an ellipsis when it takes more than `room` pixels."""
    if width(text, size) <= room:
        return text
    while text and width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, room: float, size: float) -> list[str]:
    """The text in lines of at most `room` pixels; a word that is longer than a line is cut off."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fitted(word, room, size))
    return lines
