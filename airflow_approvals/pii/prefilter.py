"""Which of many regular expressions could match a text, in one pass over it.

A pre-filter may say yes too often, never no too often: what it names is then matched by the expression
itself. It is trusted with printable ASCII only, because engines differ on what case, digits, blanks and word
boundaries are beyond it, and with expressions only whose every construct means the same to all engines.
Hyperscan's own pre-filter mode keeps the promise for look-around and back-references. All other expressions
are named for every text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Protocol

log = logging.getLogger(__name__)

PRINTABLE_ASCII = re.compile(r"[\t\n\r\f\x20-\x7e]*\Z")
# No syntax of the `regex` module's own, such as fuzzy matching, word starts or set operations.
PORTABLE = re.compile(
    r"""(?:\(\?[ims]+\))?(?:
        \\[bBdDwWsSnrtfAZ0-9] | \\[\x20-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]   # escapes
      | \[\^?\]?(?:                                                                 # classes
            \\[bdDwWsSnrtf] | \\[\x20-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]
          | (?!--|&&|\|\||~~)[^\[\]\\] | \[(?!:)
        )*\]
      | \(\?(?: : | = | ! | <= | <! | P<[A-Za-z_]\w*> ) | \((?!\?) | \)
      | \{\d+(?:,\d*)?\} | [^\\\[(){}]
    )*\Z""",
    re.VERBOSE | re.ASCII,
)
LOOK_AROUND = re.compile(r"\(\?<?[=!]")
WIDE_REPEAT = re.compile(r"\{(\d+),(\d{3,})\}")


class Prefilter(Protocol):
    """Names the expressions that could match."""

    name: str

    def candidates(self, text: str) -> Sequence[int]:
        """Return the numbers of the expressions that could match this printable text, ascending."""


def build_prefilter(expressions: Sequence[tuple[str, int]]) -> Prefilter | None:
    """Return the best pre-filter that is installed for (expression, `regex` flags) pairs, if any."""
    if not expressions:
        return None
    for build in (_Hyperscan, _Re2):
        try:
            return build(expressions)
        except ImportError:
            log.debug("%s is not installed", build.__name__)
    return None


class _Hyperscan:
    """Intel's multi-pattern matcher."""

    name = "hyperscan"

    def __init__(self, expressions: Sequence[tuple[str, int]]) -> None:
        import hyperscan

        modes = [_hyperscan_flags(hyperscan, flags) for _, flags in expressions]
        taken = [
            (expression.encode(), number, mode)
            for number, ((expression, _), mode) in enumerate(zip(expressions, modes, strict=True))
            if mode is not None and _is_portable(expression)
        ]
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        if not _compiles(hyperscan, self._database, taken):
            # At least one is refused: find out which.
            taken = [one for one in taken if _compiles(hyperscan, hyperscan.Database(), [one])]
            _compiles(hyperscan, self._database, taken)
        self._always = sorted(set(range(len(expressions))) - {number for _, number, _ in taken})
        self._empty = not taken

    def candidates(self, text: str) -> Sequence[int]:
        if self._empty:
            return self._always
        found: set[int] = set(self._always)

        def note(number: int, start: int, end: int, flags: int, context: object) -> None:
            found.add(number)

        self._database.scan(text.encode("ascii"), match_event_handler=note)
        return sorted(found)


class _Re2:
    """Google's linear-time matcher; look-around is cut out, which only widens what matches."""

    name = "re2"

    def __init__(self, expressions: Sequence[tuple[str, int]]) -> None:
        import re2

        options = re2.Options()
        options.log_errors = False
        options.max_mem = 256 << 20
        self._set = re2.Set.SearchSet(options)
        self._numbers: list[int] = []
        self._always: list[int] = []
        for number, (expression, flags) in enumerate(expressions):
            widened = _widened(expression, flags)
            try:
                if widened is not None:
                    self._set.Add(widened)
                    self._numbers.append(number)
                    continue
            except re2.error:
                log.debug("expression %d is not taken by re2", number)
            self._always.append(number)
        if self._numbers:
            self._set.Compile()

    def candidates(self, text: str) -> Sequence[int]:
        matched = (self._set.Match(text) or ()) if self._numbers else ()
        return sorted({*self._always, *(self._numbers[index] for index in matched)})


def _hyperscan_flags(hyperscan: Any, flags: int) -> int | None:
    if flags & ~_known_flags():
        return None
    mode = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH
    for known, wanted in (
        (re.IGNORECASE, hyperscan.HS_FLAG_CASELESS),
        (re.DOTALL, hyperscan.HS_FLAG_DOTALL),
        (re.MULTILINE, hyperscan.HS_FLAG_MULTILINE),
    ):
        if flags & known:
            mode |= wanted
    return int(mode)


def _compiles(hyperscan: Any, database: Any, taken: Sequence[tuple[bytes, int, int]]) -> bool:
    if not taken:
        return True
    expressions, numbers, modes = zip(*taken, strict=True)
    try:
        database.compile(
            expressions=list(expressions), ids=list(numbers), flags=list(modes), elements=len(taken)
        )
    except hyperscan.error:
        return False
    return True


def _known_flags() -> int:
    return int(re.IGNORECASE | re.DOTALL | re.MULTILINE)


def _inline_flags(flags: int) -> str:
    letters = [("i", re.IGNORECASE), ("s", re.DOTALL), ("m", re.MULTILINE)]
    return "(?" + "".join(letter for letter, flag in letters if flags & flag) + ")" if flags else ""


def _is_portable(expression: str) -> bool:
    return expression.isascii() and PORTABLE.match(expression) is not None


def _widened(expression: str, flags: int) -> str | None:
    """Cut out look-around, and widen repeats that re2 finds too wide; None where that cannot be done."""
    if flags & ~_known_flags() or not _is_portable(expression):
        return None
    if "$" in expression and not flags & re.MULTILINE:
        return None  # re2 does not match it before a last line break
    while (found := LOOK_AROUND.search(expression)) is not None:
        end = _closing(expression, found.start())
        if end is None:
            return None
        expression = expression[: found.start()] + "(?:)" + expression[end + 1 :]
    return _inline_flags(flags) + WIDE_REPEAT.sub(lambda wide: "+" if int(wide[1]) else "*", expression)


def _closing(expression: str, start: int) -> int | None:
    """Return where the bracket that opens at `start` closes."""
    depth, place, in_class = 0, start, False
    while place < len(expression):
        character = expression[place]
        if character == "\\":
            place += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()":
            depth += 1 if character == "(" else -1
            if depth == 0:
                return place
        place += 1
    return None
