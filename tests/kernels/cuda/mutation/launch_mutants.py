"""Mutants of launch tables: another grid or block, and operators, bounds and axes of their numbers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Change = tuple[str, int, int, str]
"""Kind, where the text begins and ends that goes, what comes in its place."""

LAUNCHES = {"Launch": ("grid", "block"), "Team": ("name", "grid", "block")}
"""Calls that fix a launch's geometry, and their arguments by place."""

ONE_LESS = "(lambda g: (max(1, g[0] - 1), *g[1:]))({})"
HALVED = "(lambda g: (max(1, g[0] // 2), *g[1:]))({})"
LAST_HALVED = "(lambda g: (*g[:-1], max(1, g[-1] // 2)))({})"

BOUNDS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
OPERATORS = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}  # fmt: skip
TESTS = {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "==")}


def mutants(code: str) -> Iterator[Change]:
    """Yield every change of a launch table that this module knows: in functions, not in errors."""
    lines = [0]
    for line in code.split("\n"):
        lines.append(lines[-1] + len(line) + 1)

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = lines[node.lineno - 1] + node.col_offset
        return start, lines[node.end_lineno - 1] + node.end_col_offset

    def between(left: ast.expr, right: ast.expr, symbol: str) -> tuple[int, int]:
        start, end = span(left)[1], span(right)[0]
        at = start + code[start:end].index(symbol)
        return at, at + len(symbol)

    for node in _nodes(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in LAUNCHES:
            names = LAUNCHES[node.func.id]  # type: ignore[attr-defined]
            given = {**dict(zip(names, node.args, strict=False)),
                     **{k.arg: k.value for k in node.keywords if k.arg is not None}}  # fmt: skip
            for name in ("grid", "block"):
                start, end = span(given[name])
                for change in _changes_of_geometry(given[name]):
                    yield "launch", start, end, change.format(code[start:end])
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            for table, kind in ((BOUNDS, "bound"), (TESTS, "operator")):
                for symbol, other in filter(None, [table.get(type(node.ops[0]))]):
                    yield kind, *between(node.left, node.comparators[0], symbol), other
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            symbol, other = OPERATORS[type(node.op)]
            yield "operator", *between(node.left, node.right, symbol), other
        elif isinstance(node, ast.Subscript):
            place = node.slice
            if isinstance(place, ast.Constant) and isinstance(place.value, int):
                yield "axis", *span(place), str(place.value - 1 if place.value else 1)


def _changes_of_geometry(given: ast.expr) -> tuple[str, ...]:
    """Return the changes of a grid or block that differ, and that change it."""
    if isinstance(given, ast.Tuple):
        if [ast.unparse(size) for size in given.elts] == ["1"]:
            return ()
        may_be_wide = len(given.elts) > 1
    else:
        may_be_wide = ast.unparse(given).startswith("team.")
    return (ONE_LESS, HALVED, LAST_HALVED) if may_be_wide else (ONE_LESS, HALVED)


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what functions compute; not annotations, defaults, errors and texts."""
    waiting: list[ast.AST] = [
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for statement in node.body
        if not isinstance(statement, ast.FunctionDef)
    ]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.FunctionDef, ast.AnnAssign)):
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                waiting.append(node.value)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def functions_at(code: str, line: int) -> list[str]:
    """Return the names of the functions that a line lies in, the outermost first."""
    return [
        node.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
