"""Makes what a new installation needs and no repository may hold: keys, passwords, and a customer list.

Run it as often as you like: what is there stays.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path

from demo.customers import write_customers

HOME, DATA, SECRETS = (Path(folder) for folder in ("/opt/airflow", "/opt/data", "/opt/secrets"))
PEOPLE = ("admin", "engineer", "alice", "bob")


def main() -> None:
    """Write the files, and say who can log in."""
    for name in ("api_secret_key", "jwt_secret"):
        _keep(SECRETS / name, secrets.token_urlsafe(48))
    _keep(SECRETS / "fernet_key", base64.urlsafe_b64encode(os.urandom(32)).decode())
    _keep(SECRETS / "masking_key", base64.b64encode(os.urandom(32)).decode())
    passwords = HOME / "approvals" / "passwords.json"
    _keep(passwords, json.dumps({person: secrets.token_urlsafe(9) for person in PEOPLE}))
    if not (DATA / "source" / "customers.csv").exists():
        write_customers(DATA / "source" / "customers.csv")
    (DATA / "outbox" / "customers").mkdir(parents=True, exist_ok=True)
    for person, password in json.loads(passwords.read_text()).items():
        sys.stdout.write(f"login {person}, password {password}\n")


def _keep(path: Path, made: str) -> None:
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(opened, "w") as stream:
        stream.write(made)


if __name__ == "__main__":
    main()
