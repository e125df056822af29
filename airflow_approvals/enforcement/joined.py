"""What stands in front of Airflow's own API server, joined with the service of our app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_approvals.core.model import Person
from airflow_approvals.enforcement.answers import AnswerGuard
from airflow_approvals.enforcement.guard import Scope, SecretGuard
from airflow_approvals.enforcement.keyring import key_path, load_keyring
from airflow_approvals.enforcement.sealing import Vault

if TYPE_CHECKING:
    from airflow_approvals.settings import Settings
    from airflow_approvals.web.backend import Backend


def root_middlewares(backend: Backend) -> list[dict[str, Any]]:
    """Return the plugin's `fastapi_root_middlewares`."""

    def open_vault() -> Vault:
        return open_vault_of(backend.settings)

    guards = [
        {
            "name": "approvals secret guard",
            "middleware": SecretGuard,
            "kwargs": {"backend": backend, "open_vault": open_vault},
        }
    ]
    if backend.settings.govern_hitl:
        guards.append(
            {
                "name": "approvals answer guard",
                "middleware": AnswerGuard,
                "kwargs": {"backend": backend, "find_person": _person_of},
            }
        )
    return guards


async def _person_of(scope: Scope) -> Person:
    from fastapi import Request

    from airflow_approvals.web.airflow_users import AirflowUsers

    return (await AirflowUsers().user_of(Request(scope))).person


def open_vault_of(settings: Settings) -> Vault:
    """Return the vault with the keys as they are now; raise `ConfigurationError` when there are none."""
    return Vault(load_keyring(key_path(settings.sealing_keys, settings.home)))
