"""Presidio's phone recognizer, asking each region's full matcher only where that region could find something.

`PhoneRecognizer` runs python-phonenumbers once for each of its regions over every text. All of them cut the
same candidates out of the text and try the same pieces of each, as long as none of these is a number; so one
run notes them, and a region is asked only about candidates with a piece that it could read as a valid number.
"Could read" is decided from the metadata, and errs on the side of yes: whatever is not plain ASCII digits and
punctuation is left to the matcher.

Source: phonenumbers/phonenumbermatcher.py, phonenumbers/phonenumberutil.py (`parse`, `is_valid_number`,
`_is_national_prefix_present_if_required`),
presidio_analyzer/predefined_recognizers/generic/phone_recognizer.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from airflow_approvals.pii.duplicates import without_duplicates
from airflow_approvals.pii.findings import Span

PLAIN_TEXT = re.compile(r"[\t\n\r\x20-\x7e]*\Z")
EXTENSION_SIGNS = "xX#;,~"
PLAIN_PIECE = re.compile(r"[\d\s()\[\]./+#;,~-]*(?:[xX][\d\s()\[\]./+#;,~-]*){0,2}\Z", re.ASCII)
NOT_BESIDE_A_NUMBER = re.compile(r"[A-Za-z$%]")
NO_DIGIT = re.compile(r"\D", re.ASCII)
HAS_EXTENSION = re.compile("[xX#;,~]")
MANY_PIECES = 30_000  # the matcher gives up at 65,535
SHORTEST = 2  # digits of a national number
SHORTEST_ABROAD = 6  # with what is dialled before a country code, the code, and the number
REMEMBERED = 4_000  # answers: the pieces of one text are often the same
VALID = 1  # phonenumbers.Leniency.VALID, Presidio's default
KINDS = (
    "premium_rate", "toll_free", "shared_cost", "voip", "personal_number", "pager", "uan", "voicemail",
    "fixed_line", "mobile",
)  # fmt: skip


Dialled = frozenset[str] | None
"""Digits, after "+" if there is one, with and without extension; None: unknown."""


class _Candidate(NamedTuple):
    """A stretch of text that the matcher cuts out, and the pieces of it that it would try to parse."""

    start: int
    text: str
    pieces: list[Dialled]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class PhoneScan:
    """The phone recognizer of an analyzer."""

    def __init__(self, recognizer: Any) -> None:
        self._recognizer = recognizer
        self._entity = recognizer.supported_entities[0]
        self._regions = tuple(recognizer.supported_regions)

    def spans(self, text: str) -> list[Span]:
        """Return what the recognizer finds in one text."""
        if not any(map(str.isdigit, text)):
            return []
        if self._recognizer.leniency != VALID or not PLAIN_TEXT.match(text):
            return self._asked_all(text)
        candidates = _candidates(text, self._regions)
        if candidates is None:
            return self._asked_all(text)
        found: list[Span] = []
        for region in self._regions if candidates else ():
            # A number that is as wide as the stretch it was cut from leaves other regions nothing that would
            # survive: what they find there is inside it and scores the same.
            wide = {(span.start, span.end) for span in found}
            open_ = [
                one
                for one in candidates
                if (one.start, one.end) not in wide
                and any(_could_be_number(piece, region) for piece in one.pieces)
            ]
            if open_:
                found.extend(self._of_candidates(text, region, open_))
        return without_duplicates(found)

    def _asked_all(self, text: str) -> list[Span]:
        every = (_matcher(text, region, self._recognizer.leniency) for region in self._regions)
        return without_duplicates(span for matcher in every for span in self._spans(matcher))

    def _of_candidates(self, text: str, region: str, candidates: Iterable[_Candidate]) -> list[Span]:
        matcher = _choosy()(text, region)
        matches = []
        for candidate in candidates:
            match = matcher.match_of(candidate)
            if match is None:
                continue
            matches.append(match)
            if match.end != candidate.end:
                # It goes on behind the number, and cuts other candidates than the run that found none.
                return list(self._spans(_choosy()(text, region)))
        return list(self._spans(matches))

    def _spans(self, matches: Iterable[Any]) -> Iterator[Span]:
        for match in matches:
            yield Span(self._entity, match.start, match.end, self._recognizer.SCORE)


def is_phone_recognizer(recognizer: Any) -> bool:
    """Tell whether this is Presidio's own, unchanged."""
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    return type(recognizer) is PhoneRecognizer and "analyze" not in vars(recognizer)


def _candidates(text: str, regions: tuple[str, ...]) -> list[_Candidate] | None:
    """Return the candidates that could be numbers in one of the regions; None where there are too many."""
    recorder = _recorder()(text, _fewest_digits(regions))
    for _ in recorder:  # it finds nothing: every piece is noted and refused
        pass
    if recorder.tried > MANY_PIECES:
        return None
    return [
        one for one in recorder.candidates if any(_could_be_anywhere(piece, regions) for piece in one.pieces)
    ]


def _could_be_anywhere(piece: Dialled, regions: tuple[str, ...]) -> bool:
    """Ask all regions in one go; most pieces of ordinary text are no number anywhere."""
    if piece is None:
        return True
    pattern = _dialled_in(regions)
    return any(number[0] == "+" or pattern.fullmatch(number) for number in piece)


def _matcher(text: str, region: str, leniency: int) -> Iterable[Any]:
    import phonenumbers

    return phonenumbers.PhoneNumberMatcher(text, region, leniency=leniency)


@cache
def _choosy() -> Any:
    import phonenumbers

    class Choosy(phonenumbers.PhoneNumberMatcher):
        """A region's matcher that does not parse what the region cannot read as a number."""

        def __init__(self, text: str, region: str) -> None:
            super().__init__(text, region, leniency=VALID)
            self._region = region

        def _parse_and_verify(self, candidate: str, offset: int) -> Any:
            dialled = _dialled(candidate)
            if dialled is not None and not any(_could_dial(number, self._region) for number in dialled):
                return None
            return super()._parse_and_verify(candidate, offset)

        def match_of(self, candidate: _Candidate) -> Any:
            return self._extract_match(candidate.text, candidate.start)

    return Choosy


@cache
def _recorder() -> Any:
    import phonenumbers

    # One class for all texts; made here because phonenumbers is imported late.
    class Recorder(phonenumbers.PhoneNumberMatcher):
        """A matcher for which nothing is a number."""

        def __init__(self, text: str, fewest_digits: int) -> None:
            super().__init__(text, None, leniency=VALID)
            self.candidates: list[_Candidate] = []
            self.tried = 0
            self._fewest_digits = fewest_digits
            self._pieces: list[Dialled] = []

        def _extract_match(self, candidate: str, offset: int) -> None:
            self.tried += 1
            if "+" not in candidate and len(NO_DIGIT.sub("", candidate)) < self._fewest_digits:
                return
            self._pieces = []
            super()._extract_match(candidate, offset)
            if self._pieces:
                self.candidates.append(_Candidate(offset, candidate, self._pieces))

        def _parse_and_verify(self, candidate: str, offset: int) -> None:
            self.tried += 1
            end = offset + len(candidate)
            if NOT_BESIDE_A_NUMBER.match(self.text, end):
                return
            if offset and candidate[:1] not in "([+" and NOT_BESIDE_A_NUMBER.match(self.text, offset - 1):
                return
            dialled = _dialled(candidate)
            if dialled != frozenset():
                self._pieces.append(dialled)

    return Recorder


def _dialled(piece: str) -> Dialled:
    """Return the digits that could be dialled: those before each sign of an extension, and all."""
    if not PLAIN_PIECE.match(piece):
        return None
    if not HAS_EXTENSION.search(piece):
        number = ("+" if "+" in piece else "") + NO_DIGIT.sub("", piece)
        return frozenset((number,)) if len(number) >= SHORTEST else frozenset()
    cuts = [place for place, sign in enumerate(piece) if sign in EXTENSION_SIGNS]
    plus = "+" if "+" in piece else ""
    numbers = (NO_DIGIT.sub("", piece[:cut]) for cut in (*cuts, len(piece)))
    return frozenset(plus + number for number in numbers if len(number) >= SHORTEST)


def _could_be_number(piece: Dialled, region: str) -> bool:
    """Tell whether `region` could read a valid number from a piece; True when in doubt."""
    return piece is None or any(_could_dial(number, region) for number in piece)


@lru_cache(REMEMBERED)
def _could_dial(number: str, region: str) -> bool:
    if number[0] == "+":
        return _could_be_international(number[1:])
    rules = _rules(region)
    if rules is None:
        return True
    out = rules.dialled_out.match(number)
    if out and not number.startswith("0", out.end()):
        rest = number[out.end() :]
        return len(rest) > SHORTEST and _could_be_international(rest)
    bare = rules.prefix is None or rules.prefix.match(number) is None
    return any(
        rules.valid.fullmatch(reading)
        and not (bare and reading == number and _needs_prefix(reading, rules.country_code))
        for reading in _readings(number, rules)
    )


@cache
def _dialled_in(regions: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern for everything that `_could_dial` could say yes to in one of the regions, and more."""
    every: list[str] = []
    for region in regions:
        rules = _rules(region)
        if rules is None:
            return re.compile(r"\d*")
        prefix = rules.prefix.pattern if rules.prefix else "(?!)"
        ahead = f"(?:{rules.country_code}|{prefix})"
        every.append(f"{ahead}{{0,3}}(?:{rules.valid.pattern})")
        every.append(f"(?:{rules.dialled_out.pattern})\\d{{3,}}")
        if rules.transform:
            every.append(f"{ahead}+\\d*")
    return re.compile("|".join(dict.fromkeys(every)))


class _Rules(NamedTuple):
    country_code: int
    dialled_out: re.Pattern[str]  # what stands before a country code
    prefix: re.Pattern[str] | None  # what stands before a national number
    transform: str | None
    valid: re.Pattern[str]


@cache
def _rules(region: str) -> _Rules | None:
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region.upper(), None)
    if metadata is None or metadata.international_prefix is None or metadata.country_code is None:
        return None
    prefix = metadata.national_prefix_for_parsing
    return _Rules(
        country_code=metadata.country_code,
        dialled_out=re.compile(metadata.international_prefix),
        prefix=re.compile(prefix) if prefix else None,
        transform=metadata.national_prefix_transform_rule or None,
        valid=_valid_numbers(metadata.country_code),
    )


def _readings(digits: str, rules: _Rules) -> Iterable[str]:
    """Return the national numbers that could be meant, with and without country code and prefix.

    The prefix is taken off twice at most: once while looking for a country code, once after.
    """
    code = str(rules.country_code)
    readings = {digits}
    if digits.startswith(code):
        readings.add(digits[len(code) :])
    for _ in range(2):
        for number in tuple(readings):
            match = rules.prefix.match(number) if rules.prefix else None
            if match is None:
                continue
            readings.add(number[match.end() :])
            if rules.transform and match.lastindex:
                readings.add(match.expand(_complete(rules.transform, match)) + number[match.end() :])
    return readings


def _complete(transform: str, match: re.Match[str]) -> str:
    """Leave groups that did not take part out of a transform rule, as `re.sub` does."""
    for group in range(1, len(match.groups()) + 1):
        if match.group(group) is None:
            transform = transform.replace(f"\\{group}", "")
    return transform


def _could_be_international(digits: str) -> bool:
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    if digits[0] == "0":
        return True  # no country's code: the plus sign is dropped, and the region decides
    for length in (1, 2, 3):
        code = int(digits[:length] or 0)
        if code in COUNTRY_CODE_TO_REGION_CODE:
            region = COUNTRY_CODE_TO_REGION_CODE[code][0]
            rules = _rules(region) if PhoneMetadata.metadata_for_region(region, None) else None
            if rules is None:
                return True
            return any(rules.valid.fullmatch(number) for number in _readings(digits[length:], rules))
    return True  # an unknown code: likewise


@cache
def _valid_numbers(country_code: int) -> re.Pattern[str]:
    """Return a pattern that matches every national number that is valid in one of the code's regions."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    patterns: dict[str, None] = {}
    for region in COUNTRY_CODE_TO_REGION_CODE[country_code]:
        metadata = PhoneMetadata.metadata_for_region(region, None)
        for kind in KINDS:
            desc = getattr(metadata, kind, None)
            if desc is not None and desc.national_number_pattern:
                patterns[desc.national_number_pattern] = None
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


@cache
def _fewest_digits(regions: tuple[str, ...]) -> int:
    """Return how many digits a number without "+" has at least, with whatever is dialled before it."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    fewest = SHORTEST_ABROAD
    for region in regions:
        rules = _rules(region)
        if rules is None or re.search(r"(?<!\\)\d", rules.transform or ""):
            return 0
        for other in COUNTRY_CODE_TO_REGION_CODE[rules.country_code]:
            metadata = PhoneMetadata.metadata_for_region(other, None)
            for kind in KINDS:
                desc = getattr(metadata, kind, None)
                if desc is not None and desc.national_number_pattern:
                    fewest = min(fewest, *(desc.possible_length or (0,)))
    return fewest


@cache
def _formats(country_code: int) -> list[tuple[re.Pattern[str] | None, re.Pattern[str], bool]]:
    """Return how national numbers are written: leading digits, pattern, whether a prefix must be there."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(COUNTRY_CODE_TO_REGION_CODE[country_code][0], None)
    formats: list[tuple[re.Pattern[str] | None, re.Pattern[str], bool]] = []
    for written in metadata.number_format if metadata is not None else ():
        leading = written.leading_digits_pattern
        rule = written.national_prefix_formatting_rule
        needed = (
            bool(rule)
            and not written.national_prefix_optional_when_formatting
            and re.fullmatch(r"\(?\\1\)?", rule or "") is None
        )
        first = re.compile(leading[-1]) if leading else None
        formats.append((first, re.compile(written.pattern or "(?!)"), needed))
    return formats


def _needs_prefix(number: str, country_code: int) -> bool:
    """Tell whether a number that was written without its national prefix is refused for that."""
    for leading, pattern, needed in _formats(country_code):
        if (leading is None or leading.match(number)) and pattern.fullmatch(number):
            return needed
    return False
