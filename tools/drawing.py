"""From what a terminal got to an SVG: pyte is the terminal, rich draws.

Nothing in the SVG comes from elsewhere: no fonts, no style sheets. The letters are set by
their width (textLength), so that any monospaced font fits.
"""

from __future__ import annotations

import io
import itertools
import re

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
THEME = TerminalTheme(
    (22, 27, 34),
    (215, 221, 227),
    [(60, 66, 74), (255, 123, 114), (86, 211, 100), (227, 179, 65),
     (121, 192, 255), (210, 168, 255), (86, 212, 221), (215, 221, 227)],
    [(139, 148, 158), (255, 161, 152), (126, 231, 135), (242, 204, 96),
     (165, 214, 255), (226, 197, 255), (179, 240, 255), (240, 246, 252)],
)  # fmt: skip
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: FONTS; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: FONTS; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
""".replace("FONTS", FONTS)
LEAST_COLUMNS = 40
SGR = re.compile(rb"\x1b\[([0-9;]*)m")


def draw(title: str, output: bytes, columns: int, rows: int) -> str:
    """The SVG of a terminal of that size which got `output`; what is empty below and to the right is left out."""
    screen = pyte.Screen(columns, rows)
    pyte.ByteStream(screen).feed(SGR.sub(_dim_as_blink, output))
    lines = [_line(screen, row) for row in range(rows)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    width = max(LEAST_COLUMNS, *(line.cell_len for line in lines))
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for line in lines:
        console.print(line, no_wrap=True, crop=True, highlight=False, markup=False, emoji=False)
    name = re.sub(r"[^a-z]+", "-", title)
    svg = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=f"worker-{name}")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _dim_as_blink(match: re.Match[bytes]) -> bytes:
    """pyte knows no dim (2); blink (5), which workerctl never uses, carries it through."""
    return b"\x1b[" + b";".join(b"5" if word == b"2" else word for word in match[1].split(b";")) + b"m"


def _line(screen: pyte.Screen, row: int) -> Text:
    """Words of one style, each of which is set at its place: not all that draw SVG heed textLength.
    The second half of a wide character is empty."""
    text = Text()
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    for style, run in itertools.groupby(cells, _style):
        for word in re.findall(r"\S+|\s+", "".join(cell.data for cell in run)):
            text.append(word, style)
    if not any(cell.reverse for cell in cells):
        text.rstrip()
    return text


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(cell.fg), bgcolor=_colour(cell.bg), bold=cell.bold, dim=cell.blink, reverse=cell.reverse
    )


def _colour(name: str) -> str | None:
    """pyte's names are X11's, where yellow is brown."""
    return None if name == "default" else {"brown": "yellow"}.get(name, name)
