"""Which places a glob of the policy covers.

Rules of the globs, for `source` and `destination`:

- A place is a URI, `scheme://authority/segment/segment`; an absolute path is `file://` and that path.
- `*` stands for any characters within one segment (or the authority, or the scheme), never for a slash.
- `**` is a whole segment and stands for any number of segments, none included: `s3://b/**` covers `s3://b`
  itself, so that deleting the bucket is no way around a policy for what is in it. `**` alone covers any URI.
- A glob is anchored: it must cover the whole place. All else is literal; `? [ ] { }` are refused in globs.
- Scheme and authority ignore case; path segments do not. `s3a` and `s3n` are `s3`, `gcs` is `gs`, `local`
  is `file`. A connection id (`s3://conn_id@bucket/key`) does not count unless the glob itself has an `@`.
- One trailing slash does not count.

What a place may not hold, because two programs could read it differently (`InvalidRequestError`): dot
segments (also percent-encoded, also twice), empty segments, backslashes, control and bidi characters, a
password, chained protocols (`::`), `?` or `#` or a percent sign in the authority. A percent sign in the path
may be literal (object stores) or an encoding (HTTP): where the globs cover one reading and not the other,
the place is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from airflow_approvals.core.errors import InvalidRequestError

MAX_URI_LENGTH = 4_096

_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "local": "file"}
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Place(NamedTuple):
    """A URI taken apart in one reading; `user` is what stands before an `@` in the authority."""

    scheme: str
    user: str
    authority: str
    segments: tuple[str, ...]


def places_of(uri: str) -> tuple[Place, ...]:
    """Return the readings of `uri`; raise `InvalidRequestError` when one of them is dangerous."""
    if len(uri) > MAX_URI_LENGTH:
        raise InvalidRequestError(f"a URI has {len(uri)} characters; at most {MAX_URI_LENGTH} are allowed")
    literal = unicodedata.normalize("NFC", uri)
    readings = [literal]
    # At most three times: what is encoded more often than that is no file name.
    for _ in range(3):
        decoded = unicodedata.normalize("NFC", unquote(readings[-1]))
        if decoded == readings[-1]:
            break
        readings.append(decoded)
    else:
        raise _refusal(uri, "percent signs inside percent signs")
    return tuple(dict.fromkeys(_place_of(reading, uri) for reading in readings))


def covers(globs: Sequence[str], uri: str) -> bool:
    """Return whether one of `globs` covers `uri`; raise `InvalidRequestError` when its readings disagree."""
    answers = {any(_covers(glob, place) for glob in globs) for place in places_of(uri)}
    if len(answers) > 1:
        raise _refusal(uri, "a percent sign that can be read in two ways; write the character itself")
    return answers.pop()


def covers_name(glob: str, name: str) -> bool:
    """Return whether `glob`, where `*` stands for any characters, covers the whole of `name`."""
    begin, star, _ = glob.partition("*")
    if not star or not name.startswith(begin):  # most names: told without a walk
        return glob == name
    return _run(glob, name, is_star=lambda part: part == "*", fits=lambda part, item: part == item)


def is_within(inner: str, outer: str) -> bool:
    """Return whether `outer` surely covers every place that the glob `inner` does; False when in doubt."""
    if outer == "**" or inner == outer:
        return True
    if inner == "**":
        return False
    narrow, wide = (_place_of(unicodedata.normalize("NFC", glob), glob) for glob in (inner, outer))
    if wide.user and narrow.user != wide.user:
        return False
    return _run(
        (wide.scheme, wide.authority, *wide.segments),
        (narrow.scheme, narrow.authority, *narrow.segments),
        is_star=lambda part: part == "**",
        # `**` may stand for several segments, which no `*` covers.
        fits=lambda part, item: item != "**" and is_within_name(item, part),
    )


def is_within_name(inner: str, outer: str) -> bool:
    """Return whether the glob `outer` covers every name that the glob `inner` does."""
    return covers_name(outer, inner)  # a star of `inner` is met by a star of `outer` alone


def check_glob(glob: str) -> None:
    """Raise `ValueError` unless `glob` is one that can cover a URI."""
    if any(character in "?[]{}" for character in glob):
        raise ValueError(f"the glob {glob!r} holds one of ? [ ] {{ }}; only * and ** are special here")
    if glob == "**":
        return
    for segment in glob.split("/"):
        if "**" in segment and segment != "**":
            raise ValueError(f"in the glob {glob!r} ** must be a whole segment, like s3://bucket/**")
    try:
        place = _place_of(unicodedata.normalize("NFC", glob), glob)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None
    if "%" in glob or (place.scheme == "**"):
        raise ValueError(
            f"the glob {glob!r} holds a percent sign or no scheme; write the characters themselves"
        )


def _covers(glob: str, place: Place) -> bool:
    if glob == "**":
        return True
    wanted = _place_of(unicodedata.normalize("NFC", glob), glob)
    if wanted.user and not covers_name(wanted.user, place.user):
        return False
    return _run(
        (wanted.scheme, wanted.authority, *wanted.segments),
        (place.scheme, place.authority, *place.segments),
        is_star=lambda part: part == "**",
        fits=covers_name,
    )


def _run(
    pattern: Sequence[str],
    items: Sequence[str],
    *,
    is_star: Callable[[str], bool],
    fits: Callable[[str, str], bool],
) -> bool:
    """Return whether `pattern` covers all `items`; time is their product at most (no backtracking bombs)."""
    at, seen = 0, 0
    star, restart = -1, 0
    while seen < len(items):
        if at < len(pattern) and is_star(pattern[at]):
            star, restart = at, seen
            at += 1
        elif at < len(pattern) and fits(pattern[at], items[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            restart += 1
            at, seen = star + 1, restart
        else:
            return False
    return all(is_star(part) for part in pattern[at:])


def _place_of(reading: str, uri: str) -> Place:
    if any(unicodedata.category(character) in _UNSEEN for character in reading) or reading != reading.strip():
        raise _refusal(uri, "a character that cannot be seen")
    if "\\" in reading or "::" in reading:
        raise _refusal(uri, "a backslash or a chained protocol (::)")
    if reading.startswith("/"):
        reading = f"file://{reading}"
    scheme, mark, rest = reading.partition("://")
    if not mark or not scheme or "/" in scheme:
        raise _refusal(uri, "no scheme; write s3://bucket/key, file:///folder/file or scheme://name")
    scheme = scheme.lower()
    full_authority, _, path = rest.partition("/")
    user, _, authority = full_authority.rpartition("@")
    _check_authority(scheme, user, authority, uri)
    segments = tuple(path.removesuffix("/").split("/")) if path.removesuffix("/") else ()
    for segment in segments:
        if segment in ("", ".", ".."):
            raise _refusal(uri, "an empty segment, . or ..; write the place itself")
    return Place(_ALIASES.get(scheme, scheme), user, authority.lower().rstrip("."), segments)


def _check_authority(scheme: str, user: str, authority: str, uri: str) -> None:
    if any(character in f"{user}{authority}" for character in "?#%"):
        raise _refusal(uri, "one of ? # % before the first slash")
    if ":" in user:
        raise _refusal(uri, "a password; keep it in an Airflow connection")
    if _ALIASES.get(scheme, scheme) == "file":
        if authority or user:
            raise _refusal(uri, "a host name; write file:/// and the absolute path")
    elif not authority.strip("."):
        raise _refusal(uri, "no bucket, host or connection after ://")


def _refusal(uri: str, what: str) -> InvalidRequestError:
    shown = "".join(c if unicodedata.category(c) not in _UNSEEN else f"<U+{ord(c):04X}>" for c in uri[:200])
    if ":" in shown.partition("://")[2].rpartition("@")[0]:
        shown = "the URI"  # it holds a password
    return InvalidRequestError(f"{shown} holds {what}" if "no " not in what[:3] else f"{shown} has {what}")
