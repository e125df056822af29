"""What tells one engine from another: in words for a report, and as a digest of what it can find."""

from __future__ import annotations

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.pii.scanner import Scanner


def engine_words(scanner: Scanner) -> str:
    """Return Presidio's version and the model, as a report tells them."""
    from importlib.metadata import version

    config = scanner.config
    model = config.nlp_conf or config.analyzer_conf or config.model
    return f"presidio-analyzer {version('presidio-analyzer')}, {model}, {config.language}"


def engine_digest(scanner: Scanner) -> str:
    """Return the SHA-256 of everything in the configuration that decides what is found."""
    config = scanner.config
    files = (config.analyzer_conf, config.nlp_conf, config.recognizers_conf)
    return digest_of(
        {
            "engine": engine_words(scanner),
            "files": [path.read_text(encoding="utf-8") if path else None for path in files],
            "typed": config.typed,
            "normalise_digits": config.normalise_digits,
        }
    )
