"""Settings: what is not configured follows from Airflow's own options."""

from __future__ import annotations

import pytest

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.settings import read_settings

PUBLIC, INSIDE = "https://airflow.example.com", "http://api-server:8080"


@pytest.mark.parametrize(
    ("configured", "service_url"),
    [
        pytest.param({}, PUBLIC, id="nothing: the address that people use"),
        pytest.param(
            {"CORE__EXECUTION_API_SERVER_URL": f"{INSIDE}/execution/"}, INSIDE, id="as the task SDK"
        ),
        pytest.param(
            {"CORE__EXECUTION_API_SERVER_URL": f"{INSIDE}/airflow/execution"},
            f"{INSIDE}/airflow",
            id="below a path",
        ),
        pytest.param(
            {
                "CORE__EXECUTION_API_SERVER_URL": f"{PUBLIC}/execution/",
                "APPROVALS__SERVICE_URL": f"{INSIDE}/",
            },
            INSIDE,
            id="its own option first",
        ),
    ],
)
def test_workers_reach_the_service_inside_and_links_lead_outside(
    monkeypatch: pytest.MonkeyPatch, configured: dict[str, str], service_url: str
) -> None:
    for option in ("API__BASE_URL", "CORE__EXECUTION_API_SERVER_URL", "APPROVALS__BASE_URL"):
        monkeypatch.delenv(f"AIRFLOW__{option}", raising=False)
    for option, value in ({"API__BASE_URL": PUBLIC} | configured).items():
        monkeypatch.setenv(f"AIRFLOW__{option}", value)
    settings = read_settings()
    assert (settings.base_url, settings.service_url) == (PUBLIC, service_url)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["due_interval", "http_timeout", "witness_interval"])
def test_seconds_that_are_none_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__APPROVALS__{name.upper()}", text)
    with pytest.raises(ConfigurationError, match=rf"\[approvals\] {name}: expected seconds.*'{text}'"):
        read_settings()


@pytest.mark.parametrize("name", ["base_url", "service_url"])
@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("https://approvals.münchen.example/", "https://approvals.xn--mnchen-3ya.example"),
        ("https://Straße.example:8443/größe", "https://xn--strae-oqa.example:8443/gr%C3%B6%C3%9Fe"),
        ("https://例え.テスト/airflow", "https://xn--r8jz45g.xn--zckzah/airflow"),
        (PUBLIC, PUBLIC),
    ],
)
def test_a_host_beyond_ascii_is_told_by_the_name_that_browsers_and_mails_use(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, uri: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__APPROVALS__{name.upper()}", text)
    assert getattr(read_settings(), name) == uri


@pytest.mark.parametrize(
    "text", ["https://münchen..example", "https://münchen .example", "https://:80/ä", "ä", "https://ä:b"]
)
def test_an_address_beyond_ascii_that_names_no_host_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("AIRFLOW__APPROVALS__BASE_URL", text)
    with pytest.raises(ConfigurationError, match=r"\[approvals\] base_url: expected an address"):
        read_settings()
