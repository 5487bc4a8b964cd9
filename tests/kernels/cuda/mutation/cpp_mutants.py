"""Mutants of CUDA C++: one small change of an operator, a bound, an index, a stride, an axis, a barrier.

The kernels are formatted by clang-format, so an operator between blanks is one: ` < ` compares, while
`<` of a template stands without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trine.kernels.cuda.emulator.source import strip_comments

Change = tuple[str, int, int, str]
"""Kind, where the text begins and ends that goes, what comes in its place."""

BARRIER = re.compile(
    r"__syncthreads\(\);|__syncwarp\([^()]*\);|copy_async_wait<\w+>\(\);|__threadfence\(\);"
)

BOUND = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}

OPERATOR = {
    "+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "&&": "||", "||": "&&", "==": "!=", "!=": "==",
    "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "|",
    "|=": "&=", "&=": "|=",
}  # fmt: skip

PAIRS = (
    ("height", "width"), ("rows", "columns"), ("row", "column"), ("down", "across"), ("h", "w"), ("p", "q"),
    ("r", "s"), ("y", "x"), ("stride_a", "stride_b"), ("padding_a", "padding_b"),
    ("dilation_e", "dilation_f"), ("count", "inner"), ("channels", "inner"), ("kept", "inner"),
    ("i_count", "j_count"), ("i_move", "j_move"), ("i_step", "j_step"), ("left", "right"),
    ("sequences", "units"), ("m", "n"), ("batch_1", "batch_2"), ("x1", "x2"), ("y1", "y2"), ("n1", "n2"),
)  # fmt: skip
"""What an axis can be mistaken for."""

GEOMETRY = re.compile(r"\b(?:threadIdx|blockIdx|blockDim|gridDim)\.(?P<axis>[xyz])\b")

_INTEGER = re.compile(
    r"^\s*(?:const )?(?:long long|int|unsigned|Index|(?:const )?T\s?\*(?: const)?) \w+ = "
)
_DECLARES = re.compile(r"\b(?:int|long|unsigned|double|bool|Index|T|Taps|Windows|Span)[ *&]+$")
_DECLARES_ARRAY = re.compile(
    r"^\s*(?:(?:alignas\([^()]*\)|__shared__|static|constexpr|const|typename|extern) )*"
    r"(?!return\b|else\b|case\b|delete\b)[\w:]+(?:<[^;]*>)?[ *&]+\w+(?:\[[^\]]*\])*$"
)


def mutants(code: str) -> Iterator[Change]:
    """Yield every change of a `.cu` or header that this module knows."""
    text = visible(code)
    for match in BARRIER.finditer(text):
        yield "barrier", match.start(), match.end(), ";"
    for match in re.finditer(r"(?<= )(?:[<>]=?)(?= )", text):
        yield "bound", match.start(), match.end(), BOUND[match[0]]
    for start, end in subscripts(text):
        yield "index", start, end, f"({code[start:end]}) + 1"
    yield from _strides(text)
    for match in re.finditer(r"(?<= )[-+*/%&|^=!<>]+(?= )", text):
        if match[0] in OPERATOR:
            yield "operator", match.start(), match.end(), OPERATOR[match[0]]
    for match in re.finditer(r"\b(min|max)(?=\()", text):
        yield "operator", match.start(), match.end(), {"min": "max", "max": "min"}[match[0]]
    yield from _axes(text)


def visible(code: str) -> str:
    """Return the code that the emulator compiles, the rest blanked: comments, directives, PTX."""
    lines, hidden = [], []
    for line in strip_comments(code).split("\n"):
        word = re.match(r"\s*#\s*(\w+)(.*)", line)
        if word is not None and word[1] in ("if", "ifdef", "ifndef"):
            hidden.append(word[1] == "ifndef" and "TRINE_EMULATOR" in word[2])
        elif word is not None and word[1] == "else":
            hidden[-1] = not hidden[-1]
        elif word is not None and word[1] == "endif":
            hidden.pop()
        lines.append(" " * len(line) if word is not None or any(hidden) else line)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: " " * len(m[0]), "\n".join(lines))


def subscripts(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the text in the brackets of each access begins and ends; declarations have none."""
    for match in re.finditer(r"[\w\])]\[", text):
        start = match.end()
        if _DECLARES_ARRAY.match(_statement_before(text, match.start() + 1)):
            continue
        depth, end = 1, start
        while depth:
            depth += {"[": 1, "]": -1}.get(text[end], 0)
            end += 1
        if text[start : end - 1].strip():
            yield start, end - 1


def _statement_before(text: str, position: int) -> str:
    begin = max(text.rfind(mark, 0, position) for mark in ";{}")
    return " ".join(text[begin + 1 : position].split())


def _strides(text: str) -> Iterator[Change]:
    """Yield factors of positions, and the steps of loops, one larger."""
    inside = [range(start, end) for start, end in subscripts(text)]
    for match in re.finditer(r" \* (?P<factor>\w+)\b(?![\w(\[.]|::|->)", text):
        at = match.start("factor")
        is_position = any(at in place for place in inside)
        if is_position or _INTEGER.match(_statement_before(text, at)):
            yield "stride", at, match.end("factor"), f"({match['factor']} + 1)"
    loops = r"\bfor \([^;]*;[^;]*;[^;{]*?\+= (?P<step>(?:[^()]|\([^()]*\))+?)(?=,|\))"
    for match in re.finditer(loops, text):
        yield "stride", match.start("step"), match.end("step"), f"1 + ({match['step']})"


def _axes(text: str) -> Iterator[Change]:
    for match in GEOMETRY.finditer(text):
        axis = {"x": "y", "y": "x", "z": "x"}[match["axis"]]
        yield "axis", match.start("axis"), match.end("axis"), axis
    words = set(re.findall(r"\w+", text))
    for one, other in PAIRS:
        if not {one, other} <= words:
            continue
        for match in re.finditer(rf"(?<![.\w])(?:{one}|{other})\b(?!\()", text):
            if not _DECLARES.search(text, max(0, match.start() - 20), match.start()):
                yield "axis", match.start(), match.end(), other if match[0] == one else one
