"""Can what the policy file says of its channels be used here: each connection, each notifier, by line."""

from __future__ import annotations

from airflow_approvals.channels.one_way_kinds import check_channel
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.core.policy_yaml import read_yaml


def channel_problems(policy_file: PolicyFile, text: str, *, name: str) -> tuple[str, ...]:
    """Return file, line and reason for every channel that cannot be used; nothing is sent.

    It is no reason to refuse the file: a broken channel must never keep anybody from deciding elsewhere.
    """
    document = read_yaml(text)
    found = []
    for channel, settings in policy_file.channels.items():
        try:
            check_channel(settings)
        except ConfigurationError as error:
            line = document.line_of(("channels", channel))
            found.append(f"{name}:{line}: channels.{channel}: {error}")
    return tuple(found)
