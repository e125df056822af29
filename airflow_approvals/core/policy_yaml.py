"""YAML text to plain values that remember their lines; what a policy has no need of is refused.

Nothing in the text can make an object, run code, or grow beyond its own size: only plain maps, lists,
strings, numbers, true, false and null are built; no tags, no anchors, no aliases, no merge keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

MAX_TEXT_LENGTH = 256 * 1024
MAX_DEPTH = 16

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong with a file, and the line (from 1) where it is seen."""

    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a YAML text says, where each part of it stands, and what is wrong with it."""

    value: Any
    lines: dict[Path, int]
    problems: tuple[Problem, ...]

    def line_of(self, path: Path) -> int:
        """Return the line of `path`, or of the closest part around it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> Document:
    """Return the value, lines and problems of `text`; never raises for bad text."""
    if len(text) > MAX_TEXT_LENGTH:
        return _broken(
            Problem(1, f"the file has {len(text)} characters, at most {MAX_TEXT_LENGTH} are allowed")
        )
    from yaml import MarkedYAMLError
    from yaml.reader import ReaderError

    reader = _Reader()
    try:
        node = reader.compose(text)
    except _RefusedError as error:
        return _broken(error.problem)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _broken(
            Problem(mark.line + 1 if mark else 1, f"broken YAML: {error.problem or 'syntax error'}")
        )
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _broken(Problem(line, "a character that YAML does not allow; remove control characters"))
    if node is None:
        return _broken(Problem(1, "the file is empty"))
    value = reader.value_of(node, ())
    return Document(value=value, lines=reader.lines, problems=tuple(reader.problems))


def _broken(problem: Problem) -> Document:
    return Document(value=None, lines={}, problems=(problem,))


class _RefusedError(Exception):
    """Something in the text that must not even be composed."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.problem = Problem(line, reason)


class _Reader:
    """Turns nodes into values, and collects lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def compose(self, text: str) -> Node | None:
        import yaml

        class Loader(yaml.SafeLoader):
            """Composes nodes; refuses aliases (each can double the size) and deep nesting (the stack)."""

            depth = 0

            def compose_node(self, parent: Any, index: Any) -> Any:
                event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # not in PyYAML's stubs
                line = event.start_mark.line + 1
                if getattr(event, "anchor", None) is not None:  # of an alias too
                    raise _RefusedError(line, "YAML anchors and aliases are not allowed; write the value out")
                if self.depth >= MAX_DEPTH:
                    raise _RefusedError(line, f"nested more than {MAX_DEPTH} deep")
                self.depth += 1
                node = super().compose_node(parent, index)
                self.depth -= 1
                return node

        loader = Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()

    def value_of(self, node: Node, path: Path) -> Any:
        from yaml import MappingNode, SequenceNode

        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value_of(child, (*path, position)) for position, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        from yaml import ScalarNode

        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                self.problems.append(Problem(line, "a key that is not a string; put it in quotes"))
                continue
            if key in found:
                self.problems.append(Problem(line, f"the key {key!r} is here twice; remove one"))
                continue
            self.lines[(*path, key)] = line
            found[key] = self.value_of(value_node, (*path, key))
        return found

    def _scalar(self, node: Node) -> Any:
        from yaml import ScalarNode
        from yaml.constructor import SafeConstructor

        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        make = {
            "str": SafeConstructor.construct_yaml_str,
            "int": SafeConstructor.construct_yaml_int,
            "float": SafeConstructor.construct_yaml_float,
            "bool": SafeConstructor.construct_yaml_bool,
            "null": SafeConstructor.construct_yaml_null,
        }.get(kind)
        if make is None or not isinstance(node, ScalarNode):
            self.problems.append(
                Problem(
                    node.start_mark.line + 1,
                    f"a YAML value of type {kind!r} is not allowed; put it in quotes",
                )
            )
            return None
        try:
            return make(SafeConstructor(), node)
        except (ValueError, ArithmeticError):
            self.problems.append(Problem(node.start_mark.line + 1, f"not a valid {kind}; put it in quotes"))
            return None
