"""The columns that text takes on a terminal: wide characters take two, marks none.

The rules are rich's (Unicode's East Asian Width), so that what is drawn with rich and
what is drawn without agree.
"""

from __future__ import annotations


def columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fitted(text: str, width: int, *, right: bool = False, dots: str = "…") -> str:
    """Exactly so many columns: filled up with spaces, or cut with `dots` at its end."""
    if width <= 0:
        return ""
    taken = columns(text)
    if taken <= width:
        space = " " * (width - taken)
        return space + text if right else text + space
    if text.isascii():
        kept = text[: max(0, width - len(dots))]
    else:
        from rich.cells import set_cell_size

        kept = set_cell_size(text, max(0, width - len(dots)))
    return (kept + dots)[:width] if text.isascii() else kept + dots[:width]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many columns, broken at spaces; within a word only where it is wider than a line."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and columns(line) + 1 + columns(word) <= width:
            line += " " + word
            continue
        if line:
            lines.append(line)
        while columns(word) > width:
            head = _beginning(word, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line] if line or not lines else lines


def _beginning(word: str, width: int) -> str:
    """As many of its characters as fit, at least one."""
    length = len(word)
    while length > 1 and columns(word[:length]) > width:
        length -= 1
    return word[:length]
