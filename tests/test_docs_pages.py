"""What any page names is there: files, sections, pictures, commands, options, modules, settings."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_approvals.channels.slack import groups, patience, workspace
from airflow_approvals.channels.webhook import MIN_SECRET
from airflow_approvals.cli.grammar import COMMANDS, Command, Group
from airflow_approvals.cli.main import build_parser
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.lineage import kept, names, spool, transport
from airflow_approvals.provider import get_provider_info
from airflow_approvals.triggers.approval import HOLD_BACK
from tests.bench.__main__ import BENCHES

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
}
SCRIPT = re.compile(r"airflow[ -]approvals (.+)")
TABLE: dict[str, Command | Group] = {command.name: command for command in COMMANDS}
REST_OF_A_POLICY_FILE: dict[str, Any] = {
    "version": 1,
    "groups": {name: {"users": ["alice", "bob"]} for name in ("data-stewards", "reviewers")},
    "policies": [
        {"name": name, "match": {"action": ["export"]}, "require": [{"group": "reviewers"}]}
        for name in ("partner-export", "crm-writes", "feeds", "two-person")
    ],
}
"""What pages leave out where they show a part of a policy file."""

FIGURES: list[tuple[str, str, float]] = [
    ("docs/channels.md", "at least {} bytes in base64", MIN_SECRET),
    ("docs/enforcement.md", "paused less than {} seconds ago", HOLD_BACK),
    ("docs/lineage.md", "a folder that is full ({} MiB)", kept.MOST_BYTES >> 20),
    ("docs/lineage.md", "event larger than {} MiB", kept.MAX_BODY >> 20),
    ("docs/lineage.md", "spends at most {} seconds", transport.PATIENCE),
    ("docs/lineage.md", "set aside after {} tries", spool.MAX_CHOKES),
    ("docs/lineage.md", "names longer than {} characters", names.MAX_COLUMN),
    ("docs/slack.md", "asked for every {} minutes", groups.ASKED_EVERY.total_seconds() / 60),
    ("docs/slack.md", "has not confirmed for {} is nobody", groups.BELIEVED.total_seconds() / 60),
    ("docs/slack.md", "their vote within {} minutes", workspace.KEPT / 60),
    ("docs/slack.md", "get {} answers in", patience.TIMES),
    ("docs/slack.md", "in {} minutes, then silence", patience.WITHIN.total_seconds() / 60),
]
WORDS = {2: "two", 5: "five", 10: "ten"}


def every(pattern: str) -> list[tuple[str, str]]:
    """Return what `pattern` finds on any page, with the name of the page, each once."""
    found = {(page, hit) for page, text in PAGES.items() for hit in re.findall(pattern, text, re.MULTILINE)}
    assert found, pattern
    return sorted(found)


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page, without the indentation of a list around them."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def sections(text: str) -> set[str]:
    """Return the names by which links reach the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def told_commands() -> list[tuple[str, str]]:
    """Return the command lines of the pages' blocks, without comments."""
    lines = [
        (page, line.partition("#")[0].strip().removeprefix("$ "))
        for page in PAGES
        for text in blocks(page, r"(?:console)?")
        for line in text.splitlines()
    ]
    return [(page, line) for page, line in lines if SCRIPT.match(line)]


def told_options() -> list[tuple[str, str]]:
    """Return what stands in backticks and begins like a command of ours, the program named or not."""
    found = [(page, SCRIPT.sub(r"\1", code)) for page, code in every(r"`([a-z][^`\n]*)`")]
    groups = {name for name, command in TABLE.items() if isinstance(command, Group)}
    return [(page, code) for page, code in found if code.split()[0] in TABLE and code not in groups]


@pytest.mark.parametrize(("page", "target"), every(r"\]\(([^):]+)\)"))
def test_every_link_leads_to_a_file_and_a_section_that_are_there(page: str, target: str) -> None:
    path, _, section = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    assert file.exists()
    if section:
        assert section in sections(file.read_text(encoding="utf-8"))


def test_every_picture_is_shown_somewhere() -> None:
    shown = {Path(target).name for _, target in every(r"!\[[^\]]+\]\(([^)]+)\)")}
    assert shown == {path.name for path in [*(ROOT / "docs" / "img").iterdir(), ROOT / "docs" / "flow.svg"]}


@pytest.mark.parametrize(("page", "line"), told_commands())
def test_every_command_line_is_understood(page: str, line: str) -> None:
    build_parser().parse_args(shlex.split(line)[2 if line.startswith("airflow ") else 1 :])


@pytest.mark.parametrize(("page", "code"), told_options())
def test_every_command_that_a_sentence_names_is_there_with_its_options(page: str, code: str) -> None:
    word, *rest = code.split()
    command = TABLE[word]
    if isinstance(command, Group):
        command = {part.name: part for part in command.commands}[rest.pop(0)]
    known = {flag for option in command.options for flag in option.flags}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize(("page", "name"), every(r"\bairflow_approvals(?:\.\w+)+"))
def test_every_dotted_name_can_be_imported(page: str, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute) or find_spec(name)


@pytest.mark.parametrize(
    ("page", "path"), every(r"`((?:tests|docs|dags|demo|docker|airflow_approvals)/[\w./-]+)`")
)
def test_every_path_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "option"), every(r"\[approvals\] (\w+)"))
def test_every_setting_is_there(page: str, option: str) -> None:
    assert option in get_provider_info()["config"]["approvals"]["options"]


@pytest.mark.parametrize(("page", "sentence", "figure"), FIGURES)
def test_limits_are_those_of_the_code(page: str, sentence: str, figure: float) -> None:
    told = sentence.format(WORDS.get(int(figure), f"{figure:.0f}"))
    assert told in " ".join(PAGES[page].split())


def test_every_make_target_and_bench_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page, target in every(r"(?:^|`)make ([a-z][a-z-]+)"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)
    assert {name for _, name in every(r"BENCH=(\w+)")} <= set(BENCHES)


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, text) for page in PAGES for text in blocks(page, "yaml") if not re.search("^cases:", text, re.M)],
)
def test_every_policy_that_is_shown_is_read_by_the_real_parser(page: str, text: str) -> None:
    parse_policy_file(yaml.safe_dump(REST_OF_A_POLICY_FILE | yaml.safe_load(text)), name=page)
