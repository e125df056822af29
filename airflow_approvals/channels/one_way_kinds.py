"""The kinds of channels that only tell, and whether what the policy file says of one can be used here."""

from __future__ import annotations

from airflow_approvals.channels import email, notifier, teams, webhook
from airflow_approvals.channels.connections import connection_of
from airflow_approvals.channels.one_way import OneWaySender
from airflow_approvals.core.policy_channels import ChannelSettings, NotifierChannel
from airflow_approvals.service import Service


def one_way_senders(service: Service, *, base_url: str) -> dict[str, OneWaySender]:
    """Return a sender for each of these kinds."""
    return {
        teams.KIND: OneWaySender(service, teams.post_card, base_url=base_url),
        email.KIND: OneWaySender(service, email.post_mail, base_url=base_url),
        webhook.KIND: OneWaySender(service, webhook.post_event, base_url=base_url, told=webhook.told_of),
        notifier.KIND: OneWaySender(service, notifier.notify, base_url=base_url),
    }


def check_channel(settings: ChannelSettings) -> None:
    """Raise `ConfigurationError` for a channel whose connection or notifier cannot be used; send nothing."""
    if settings.kind == teams.KIND:
        teams.address_of(settings)
    elif settings.kind == webhook.KIND:
        webhook.target_of(settings)
    elif isinstance(settings, NotifierChannel):
        notifier.notifier_of(settings)
    elif settings.conn_id is not None:
        connection_of(settings.conn_id)
