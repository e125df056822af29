"""Where the ledger's heads are published: folders, Slack channels and lineage, every so often."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from airflow_approvals.channels.slack.heads import post_head
from airflow_approvals.core.errors import ApprovalsError, ConfigurationError, VerificationError
from airflow_approvals.core.heads import head_of
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.deliveries import ChannelsBackend
from airflow_approvals.web.ledger import public_keys
from airflow_approvals.web.lineage import LineageBackend
from airflow_approvals.witness import LINEAGE, SLACK, addresses_in, is_folder, open_witness, publish

log = logging.getLogger(__name__)


class Witnesses:
    """The witnesses of one process; what one of them cannot take keeps no other from its head."""

    def __init__(
        self, backend: Backend, channels: ChannelsBackend | None, lineage: LineageBackend | None
    ) -> None:
        self._backend = backend
        self._channels = channels
        self._lineage = lineage
        self._published_at: datetime | None = None
        self._told: dict[str, int] = {}  # entries under the head that each was told last

    def publish_due(self, at: datetime) -> None:
        """Publish the head every `witness_interval` seconds; a ledger that does not go on is said loudly."""
        settings = self._backend.settings
        interval = timedelta(seconds=settings.witness_interval)
        due = self._published_at is None or at - self._published_at >= interval
        addresses = addresses_in(settings.witness)
        signed = self._backend.service.store.last_checkpoint() if addresses and due else None
        if signed is None:
            return
        self._published_at = at
        # Folders first: they can tell that the ledger does not go on, and then nothing is told anywhere.
        for address in sorted(addresses, key=lambda each: not is_folder(each)):
            try:
                self._publish(address, *signed, at)
            except VerificationError as found:
                log.critical("witness %s: %s", address, found)
                return
            except (ApprovalsError, OSError) as trouble:
                # A folder of this machine may be full, or not mounted.
                log.warning("witness %s: %s", address, trouble)

    def _publish(self, address: str, size: int, note: str, at: datetime) -> None:
        service = self._backend.service
        if is_folder(address):
            keys = public_keys_from_json(public_keys(service))
            publish(open_witness(address), service.store, size=size, note=note, keys=keys)
        elif self._told.get(address) != size:
            if address.startswith(SLACK):
                self._post(address, note, at)
            else:
                self._tell(note, at)
            self._told[address] = size

    def _post(self, address: str, note: str, at: datetime) -> None:
        if self._channels is None:
            raise ConfigurationError("this API server has no channels to post to")
        channels, interval = self._channels.channels, self._backend.settings.witness_interval
        outbox = channels.deliveries.outbox
        post_head(channels.workspaces, outbox, address, head_of(note), interval=interval, now=at)

    def _tell(self, note: str, at: datetime) -> None:
        lineage = self._lineage.lineage if self._lineage is not None else None
        if lineage is None:
            raise ConfigurationError(
                f"[approvals] witness: {LINEAGE}: this API server has no OpenLineage transport; give it an "
                "[openlineage] section"
            )
        lineage.tell_head(head_of(note), now=at)
