"""Where prompts go: each kind of channel of the policy file, and what it must say, checked at load."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr

_MAX_TO = 50
_ADDRESS = r"^[^@\s,;<>\"\x00-\x1f]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}$"
_HOST = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
_CLASS_PATH = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"


def _each_once(addresses: tuple[str, ...]) -> tuple[str, ...]:
    folded = [address.lower() for address in addresses]
    if len(set(folded)) < len(folded):
        raise ValueError("an address is here twice; remove one")
    return addresses


def _spelled(pattern: str, expected: str) -> tuple[AfterValidator, Any]:
    """Return what refuses other text in words, and tells editors the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


ConnId = Annotated[StrictStr, *_spelled(r"^[^\s\x00-\x1f]{1,250}$", "the id of an Airflow connection")]
Address = Annotated[StrictStr, *_spelled(_ADDRESS, "an e-mail address, without a name beside it")]
Host = Annotated[StrictStr, *_spelled(_HOST, "the name of a host, like flows.example.com")]
ClassPath = Annotated[StrictStr, *_spelled(_CLASS_PATH, "the path of a class, like package.module.Class")]


class ChannelSettings(BaseModel):
    """One channel; a key that is not known is an error, not a silent wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: str
    conn_id: ConnId | None = None


class SlackChannel(ChannelSettings):
    """A channel of a Slack workspace, where people can also answer."""

    kind: Literal["slack"]
    conn_id: ConnId
    channel: Annotated[StrictStr, Field(min_length=1, max_length=80)]  # its id, like C0123456


class TeamsChannel(ChannelSettings):
    """A Workflows webhook of Microsoft Teams; its address is the password of the connection."""

    kind: Literal["teams"]
    conn_id: ConnId
    host: Host | None = None  # another one than Microsoft's


class EmailChannel(ChannelSettings):
    """Some e-mail addresses."""

    kind: Literal["email"]
    conn_id: ConnId
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=_MAX_TO), AfterValidator(_each_once)]


class WebhookChannel(ChannelSettings):
    """A program that takes signed webhooks; the connection holds its address and the secret."""

    kind: Literal["webhook"]
    conn_id: ConnId


class NotifierChannel(ChannelSettings):
    """Any notifier of Airflow's or of a provider's, for notices without buttons."""

    kind: Literal["notifier"]
    notifier: ClassPath
    arguments: dict[str, Any] = {}


AnyChannel = Annotated[
    SlackChannel | TeamsChannel | EmailChannel | WebhookChannel | NotifierChannel,
    Field(discriminator="kind"),
]

KINDS = ("slack", "teams", "email", "webhook", "notifier")


def path_in_file(loc: tuple[str | int, ...], kind: str) -> tuple[str | int, ...]:
    """Return where in the file a problem is that pydantic tells at `loc`.

    The union of channels tells the chosen kind as if it were a key of the file, and a wrong one not at all.
    """
    if loc[:1] != ("channels",) or len(loc) < 2:
        return loc
    if kind.startswith("union_tag"):
        return (*loc[:2], "kind")
    return (*loc[:2], *loc[3:]) if loc[2:3] and loc[2] in KINDS else loc
