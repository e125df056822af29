"""What somebody did in Slack, carried out: the same for HTTP and for Socket Mode.

A transport answers Slack first, within its three seconds, and calls `carry_out` after that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from airflow_approvals.channels.outbox import Deliveries
from airflow_approvals.channels.slack.answers import Answers
from airflow_approvals.channels.slack.interactive import Doing, HomeOpened, Intent, Nothing, intent_of
from airflow_approvals.channels.slack.signature import SignatureRefusedError
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.core.errors import ApprovalsError

log = logging.getLogger(__name__)


def intent_for(payload: Mapping[str, Any], workspace: Workspace) -> Intent:
    """Return what the person wants; raise `SignatureRefusedError` for what another app was told."""
    intent = intent_of(payload)
    if isinstance(intent, Doing) and workspace.app_id not in ("", intent.app_id):
        raise SignatureRefusedError("it is from another app")
    if isinstance(intent, Nothing):
        log.info("nothing to do for Slack: %s", intent.why)
    return intent


def carry_out(
    answers: Answers,
    deliveries: Deliveries,
    intent: Doing,
    workspace: Workspace,
    *,
    clock: Callable[[], datetime],
    new_lease: Callable[[], str],
    committed: Callable[[], object] = lambda: None,
) -> None:
    """Do what was asked, call `committed`, and show it in every copy of the prompt; never raises.

    Slack has its answer already: what fails is in the log, what could not be shown stays in the outbox.
    """
    about = intent.who.user_id if isinstance(intent, HomeOpened) else intent.ref.request_id
    try:
        answers.carry_out(intent, workspace, now=clock())
        committed()
        if not isinstance(intent, HomeOpened):
            _show(deliveries, intent.ref.request_id, clock, new_lease)
    except ApprovalsError as trouble:
        log.warning("what was done in Slack (%s) was not carried out: %s", about, trouble)
    except Exception:
        # A fault of ours; the traceback is in the log, and the person can click again.
        log.exception("what was done in Slack (%s) was not carried out", about)


def _show(
    deliveries: Deliveries, request_id: str, clock: Callable[[], datetime], new_lease: Callable[[], str]
) -> None:
    """Bring the prompts of one request up to date now, without waiting for the loop."""
    while deliveries.plan(now=clock()):
        pass
    while deliveries.deliver_one(now=clock(), lease=new_lease(), request_id=request_id):
        pass
