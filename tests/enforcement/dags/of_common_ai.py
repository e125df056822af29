"""The examples of common.ai in which people approve a tool call and a text, as they come."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

EXAMPLES = "airflow.providers.common.ai.example_dags"

# The provider is installed for its own test alone.
if find_spec("airflow.providers.common.ai"):
    # What an imported module makes counts as this file's.
    for name in ("example_agent_tool_approval", "example_llm_approval"):
        import_module(f"{EXAMPLES}.{name}")
