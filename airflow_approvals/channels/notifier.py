"""Any notifier of Airflow's or of a provider's, by class path: for plain notices, wherever those go.

Its arguments stand in the policy file, and may be templates over `approval` (`title`, `text`, `state`,
`link`, `request_id`, `policy`, `event`) as a DAG's callbacks have them over their own context.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from importlib import import_module
from typing import Any

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.telling import Message, plain_text
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.policy_channels import ChannelSettings, NotifierChannel

KIND = "notifier"


def notify(settings: ChannelSettings, message: Message, *, now: datetime) -> None:
    """Let the notifier tell it; `now` is the notifier's own business."""
    if not isinstance(settings, NotifierChannel):
        raise SendError(f"the channel is of kind {settings.kind} now", refused=True)
    notifier = notifier_of(settings)
    try:
        notifier(context_of(message))
    except Exception as error:  # whatever a notifier of anybody's raises; its words may hold its secrets
        raise SendError(f"{settings.notifier} failed ({type(error).__name__})") from error


def notifier_of(settings: NotifierChannel) -> Any:
    """Return the notifier, new for each message: it puts what it renders into itself."""
    cls = class_of(settings)
    try:
        return cls(**deepcopy(settings.arguments))
    except Exception as error:
        raise ConfigurationError(
            f"{settings.notifier} does not take these arguments ({type(error).__name__}); correct them"
        ) from error


def class_of(settings: NotifierChannel) -> Any:
    """Return the class; raise `ConfigurationError` when it is no notifier, or not there."""
    from airflow.providers.common.compat.sdk import BaseNotifier

    module, _, name = settings.notifier.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{settings.notifier} cannot be imported; install its provider where the API server runs"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, BaseNotifier)):
        raise ConfigurationError(f"{settings.notifier} is no notifier; name a subclass of BaseNotifier")
    return cls


def context_of(message: Message) -> dict[str, Any]:
    """Return what templates see."""
    request = message.request
    return {
        "approval": {
            "title": message.title,
            "text": plain_text(message),
            "facts": dict(message.facts),
            "event": message.event,
            "state": request.state.value,
            "request_id": request.id,
            "policy": request.policy,
            "link": message.link,
        }
    }
