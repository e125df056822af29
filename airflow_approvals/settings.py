"""The `[approvals]` section of airflow.cfg, read once by a call into a frozen object."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from airflow_approvals.core.errors import ConfigurationError

SECTION = "approvals"
POLICY_FILE = Path("approvals") / "policy.yaml"
"""Where the policy file is, under AIRFLOW_HOME, unless the option says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the platform owner configured. Field names are the option names."""

    policy_file: str  # path of the policy file
    gated_operators: str  # auto, required or off: whether DAG files are parsed with the file's rules
    govern_hitl: bool  # whether answers to Airflow's own Human-in-the-loop tasks are votes under the policy
    base_url: str  # where people reach Airflow's API server, without /approvals: links
    service_url: str  # where workers and the triggerer reach it
    sealing_keys: str  # path of the keys of sealed secrets; empty: beside the signing key
    signing_key: str  # signer URI of securesystemslib; empty: a key file under AIRFLOW_HOME
    public_key_file: str  # public key JSON of a signer that cannot tell it (KMS, Vault, HSM)
    worker_secret: str  # workers' tokens are signed with a key derived from it; never shown
    ledger_origin: str  # the name of this ledger in its checkpoints
    witness: str  # where signed heads of the ledger are published, one place or several; empty: nowhere
    witness_interval: float  # seconds between two of them
    http_timeout: float  # seconds for one call of a worker to the service
    due_interval: float  # seconds between two looks for expired requests and lapsed approvals
    lineage_url: str  # where a task's lineage is shown, with {dag_id}, {task_id} and {run_id}
    home: Path  # AIRFLOW_HOME


def read_gating() -> tuple[Path, str]:
    """Return the policy file's path and `gated_operators`: all that is needed where DAG files are parsed."""
    from airflow.configuration import AIRFLOW_HOME, conf

    path = conf.get(SECTION, "policy_file", fallback="") or Path(AIRFLOW_HOME) / POLICY_FILE
    return Path(path), str(conf.get(SECTION, "gated_operators", fallback="") or "auto")


def read_settings() -> Settings:
    """Return the configuration in force; call it late, never at import.

    Raises `ConfigurationError` for seconds that are none, and for addresses that nothing can be reached by.
    """
    from airflow.configuration import AIRFLOW_HOME, conf

    def option(name: str, fallback: str) -> str:
        value = conf.get(SECTION, name, fallback="")
        return str(value) if value else fallback

    def seconds(name: str, fallback: str) -> float:
        text = option(name, fallback)
        try:
            found = float(text)
        except ValueError:
            found = nan
        if not 0 < found < inf:  # without a pause a loop would never rest; NaN is not more than 0 either
            raise ConfigurationError(
                f"[{SECTION}] {name}: expected seconds, more than 0, found {text!r}; correct airflow.cfg"
            )
        return found

    home = Path(AIRFLOW_HOME)
    api_url = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    base_url = _as_uri("base_url", option("base_url", str(api_url)).rstrip("/"))
    execution_api = str(conf.get("core", "execution_api_server_url", fallback="") or "").rstrip("/")
    service_url = option("service_url", execution_api.removesuffix("/execution") or base_url).rstrip("/")
    return Settings(
        gated_operators=option("gated_operators", "auto"),
        govern_hitl=conf.getboolean(SECTION, "govern_hitl", fallback=False),
        policy_file=option("policy_file", str(home / POLICY_FILE)),
        base_url=base_url,
        service_url=_as_uri("service_url", service_url),
        sealing_keys=option("sealing_keys", ""),
        signing_key=option("signing_key", ""),
        public_key_file=option("public_key_file", ""),
        worker_secret=option("worker_secret", str(conf.get("api", "secret_key", fallback=""))),
        ledger_origin=option("ledger_origin", "airflow-approvals"),
        witness=option("witness", ""),
        witness_interval=seconds("witness_interval", "300"),
        http_timeout=seconds("http_timeout", "30"),
        due_interval=seconds("due_interval", "5"),
        lineage_url=option("lineage_url", ""),
        home=home,
    )


def _as_uri(name: str, text: str) -> str:
    """Return an address as mail headers, `Origin` and `Host` know it (RFC 3987 section 3.1; host: UTS 46)."""
    if text.isascii():
        return text
    import idna

    try:
        parts = urlsplit(text)
        host = idna.encode(parts.hostname or "", uts46=True).decode()
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError as error:  # what idna raises, too
        raise ConfigurationError(
            f"[{SECTION}] {name}: expected an address like https://airflow.example.com, found {text!r}, "
            "whose host is no name (IDNA); correct airflow.cfg"
        ) from error
    path, query = quote(parts.path, safe="/%:@!$&'()*+,;=~"), quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    return urlunsplit((parts.scheme, host + port, path, query, ""))
