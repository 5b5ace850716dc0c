"""Single mistakes: those that a program can make, and where.

The operators are cosmic-ray's. Its own command was tried and does not fit here: it has one test
command for all files, changes the working tree in place, takes no sample, and starts Python anew
for each mutant, which here means to import torch for ten seconds. mutmut 3 runs the tests in forks
of a process that has run them all, and gRPC's and torch's threads do not live on in a fork.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mistakes import MISTAKES
from tests.mutants.targets import Target

#: Operators that are not used: they change nothing, or need arguments.
_LEFT_OUT = ("core/NoOp", "core/VariableReplacer", "core/VariableInserter")
#: An operator becomes one of its own kind: others are errors of type, which any test notices.
_KINDS = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitAnd", "BitOr", "BitXor", "LShift", "RShift"},
)
#: Comparisons that mean the same in this code.
_SAME = ({"Eq", "Is"}, {"NotEq", "IsNot"})

Place = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file; ``source`` is the whole file with it."""

    target: str
    path: str
    line: int
    before: str
    after: str
    source: str
    tests: tuple[str, ...]
    #: Why no test can notice it, if that is known.
    equivalent: str = ""


def sample(target: Target, count: int, seed: int) -> list[Mutant]:
    """Mutants of a target in random order: at most ``count`` places, and one mistake at each.

    The same seed and source give the same mutants. A place counts once however many operators
    know a mistake for it, since some know a dozen.
    """
    places: dict[tuple[str, Place], list[tuple[str, int]]] = defaultdict(list)
    for path in target.files:
        for place, operator, occurrence in _mistakes(Path(path).read_text()):
            places[path, place].append((operator, occurrence))
    draw = random.Random(f"{seed} {target.name}")
    chosen = draw.sample(sorted(places), len(places))
    made = (_made(target, path, draw.choice(places[path, place])) for path, place in chosen)
    return _first((mutant for mutant in made if mutant is not None), count)


def by_hand(seed: int) -> list[Mutant]:
    """All of the table's mistakes, in random order: time may be up before the last of them."""
    made = []
    for mistake in random.Random(seed).sample(MISTAKES, len(MISTAKES)):
        source = Path(mistake.path).read_text()
        changed = source.replace(mistake.text, mistake.becomes)
        target = "queue's Lua" if mistake.path.endswith(".lua") else "by hand"
        made.append(_mutant(target, mistake.path, source, changed, mistake.tests))
    return made


def _first(mutants: Iterable[Mutant], count: int) -> list[Mutant]:
    """So many that can be noticed, and the equivalent ones before the last of them."""
    taken, told = [], 0
    for mutant in mutants:
        if told == count:
            break
        taken.append(mutant)
        told += not mutant.equivalent
    return taken


def _mistakes(source: str) -> Iterator[tuple[Place, str, int]]:
    """Where each operator's occurrences are, in its own count."""
    passed_over = _passed_over(source)
    nodes = list(ast_nodes(get_ast(source)))
    for name in filter(_is_a_mistake, operator_names()):
        operator, occurrence = get_operator(name)(), 0
        for node in nodes:
            for place, _ in operator.mutation_positions(node):
                if not any(begin <= place < end for begin, end in passed_over):
                    yield place, name, occurrence
                occurrence += 1


def _is_a_mistake(operator: str) -> bool:
    name, *pair = operator.split("_")
    match name:
        case "core/ReplaceBinaryOperator":
            return any(kind.issuperset(pair) for kind in _KINDS)
        case "core/ReplaceComparisonOperator":
            return set(pair) not in _SAME
        case _:
            return operator not in _LEFT_OUT


def _passed_over(source: str) -> list[tuple[Place, Place]]:
    """Annotations, which nobody runs, and sentences for a log."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AnnAssign():
                found.append(node.annotation)
            case ast.arg(annotation=annotation) if annotation is not None:
                found.append(annotation)
            case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns) if (
                returns is not None
            ):
                found.append(returns)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
                found.append(node)
    return [_span(node) for node in found]


def _span(node: ast.AST) -> tuple[Place, Place]:
    assert isinstance(node, ast.expr)
    end = (node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
    return (node.lineno, node.col_offset), end


def _made(target: Target, path: str, mistake: tuple[str, int]) -> Mutant | None:
    """``None`` if the operator can't change this place."""
    source, (name, occurrence) = Path(path).read_text(), mistake
    try:
        changed = mutate_code(source, get_operator(name)(), occurrence)
    except AttributeError:
        # Its operator for exceptions stumbles over those that are named with a dot in a tuple.
        return None
    if changed is None or changed == source or not _is_python(changed):
        return None
    return _mutant(target.name, path, source, changed, target.tests)


def _is_python(source: str) -> bool:
    """Operators take the ``*`` between parameters for a product."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _mutant(target: str, path: str, source: str, changed: str, tests: tuple[str, ...]) -> Mutant:
    before, after = source.splitlines(), changed.splitlines()
    lines = zip(before, after, strict=False)
    first = next((at for at, (one, other) in enumerate(lines) if one != other), len(after))
    # What was taken away has no line of its own any more; with a decorator goes the line before it.
    now = after[first].strip() if first < len(after) else ""
    while not before[first].strip():
        first += 1
    mutant = Mutant(target, path, first + 1, before[first].strip(), now, changed, tests)
    return replace(mutant, equivalent=_why_equivalent(mutant))


def _why_equivalent(mutant: Mutant) -> str:
    for row in EQUIVALENT:
        same = (row.path, row.line) == (mutant.path, mutant.before)
        if same and row.becomes in ("", mutant.after):
            return row.why
    return ""
