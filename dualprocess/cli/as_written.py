"""YAML in which a text stays as it was written, wherever the schema has a text.

Plain YAML guesses what a word without quotes is: ``off`` is false, ``1.50`` a number,
``2024-01-01`` a date. Here it guesses only where the schema does not want a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from dualprocess.cli.places import Place

#: The types that YAML guesses for a word without quotes.
_GUESSES = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "null", "bool", "int", "float", "timestamp", "merge", "value")
}
_MERGE = "tag:yaml.org,2002:merge"
#: Aliases of aliases can grow without limit.
_MAX_VALUES = 100_000
_QUOTE = "a text that YAML would take for something else must be in quotes"


class BadYaml(ValueError):
    """A file that is not YAML, or has YAML that is not allowed here. The message names the line and
    says what to do."""


def load(text: str, place: Place) -> Any:
    """The value of the YAML in ``text``, which belongs at ``place``. Raises ``BadYaml``."""
    try:
        _refuse_lost_beginnings(text)
        node = yaml.compose(text, yaml.SafeLoader)
        return None if node is None else _Reader().value(node, place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise BadYaml(f"{where}is no YAML: {said}; {_QUOTE}") from error
    except yaml.YAMLError as error:
        raise BadYaml(f"is no YAML: {error}") from error
    except RecursionError as error:
        raise BadYaml("is nested too deep") from error


def _refuse_lost_beginnings(text: str) -> None:
    """Refuses texts whose first word YAML would drop: it does so after ``&`` and ``!``."""
    events = list(yaml.parse(text, yaml.SafeLoader))
    used = {event.anchor for event in events if isinstance(event, yaml.AliasEvent)}
    for event in events:
        if not isinstance(event, yaml.ScalarEvent):
            continue
        line = _line(event)
        if event.anchor and event.anchor not in used:
            raise BadYaml(
                f"line {line}: &{event.anchor} is an anchor to YAML, and nothing refers to it; if "
                "it is part of the text, put the text in quotes"
            )
        if event.tag == "!" and event.style is None:
            raise BadYaml(f"line {line}: ! is a tag to YAML; put the text in quotes")


class _Reader:
    """Makes a value of each node, by its place in the schema."""

    def __init__(self) -> None:
        self._constructor = yaml.SafeLoader("")
        self._above: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise BadYaml(f"line {_line(node)}: its aliases repeat too much; write it out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if place.is_text and not place.holds:
            raise BadYaml(
                f"line {_line(node)}: YAML takes this for a list or a mapping; put the text in "
                "quotes"
            )
        if id(node) in self._above:
            raise BadYaml(f"line {_line(node)}: holds itself, through an alias; write it out")
        self._above.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                pairs = self._pairs(node)
                return {name: self.value(part, place.field(name)) for name, part in pairs.items()}
            assert isinstance(node, yaml.SequenceNode)
            return [self.value(part, place.item()) for part in node.value]
        finally:
            self._above.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        written: str = node.value
        if node.style is None and node.tag in _GUESSES and place.text(written):
            return written
        try:
            return self._constructor.construct_object(node, deep=True)
        except yaml.constructor.ConstructorError as error:
            raise BadYaml(
                f"line {_line(node)}: {node.tag} is a tag to YAML, but not a known one; if it is "
                "part of the text, put the text in quotes"
            ) from error
        except (ValueError, OverflowError) as error:
            raise BadYaml(
                f"line {_line(node)}: {written} can't be read ({error}); if it is a text, put it "
                "in quotes"
            ) from error

    def _pairs(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        """The values of a mapping by name, with those that it merges. Names stay as they were
        written."""
        own: dict[str, yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, part in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadYaml(f"line {_line(key)}: a list or mapping can't be the name of a field")
            if key.tag == _MERGE and key.style is None:
                for source in self._merged(part):
                    merged = {**self._pairs(source), **merged}
                continue
            if key.value in own:
                raise BadYaml(f"line {_line(key)}: {key.value} stands here twice; leave one out")
            own[key.value] = part
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> Iterator[yaml.MappingNode]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode) or id(source) in self._above:
                raise BadYaml(f"line {_line(source)}: << needs an alias of a mapping")
            yield source


def _line(at: yaml.Node | yaml.Event) -> int:
    assert at.start_mark is not None
    return at.start_mark.line + 1
