"""What the demo prints: at most 98 columns, and nothing that a program or a person said is read as markup."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

WIDTH = 98

console = Console(highlight=False)
console.width = min(console.width, WIDTH)


def rule(title: str) -> None:
    """Draw a line with a title, after an empty one."""
    console.print()
    console.rule(title, style="dim")


def show(text: str, *, style: str = "") -> None:
    """Write lines as they are: neither wrapped nor read as markup, so that they can be copied."""
    lines = [line.rstrip() for line in text.strip("\n").split("\n")]
    console.print(Text("\n".join(lines), style=style), soft_wrap=True)


def show_wrapped(text: str, *, indent: int, style: str = "") -> None:
    """Write a sentence below the one that it explains."""
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent)))
