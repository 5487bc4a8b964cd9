"""Formulas in this project's plain notation as MathML: `delta1 = W2^T delta2 (.) act'(z1)`.

A letter, Greek name or known function is a symbol; digits at its end and what follows `_` stand
below, what follows `^` above, indices in square brackets below. `(.)` is the elementwise product,
`<-` an assignment. Words of text stay words.
"""

from __future__ import annotations

import re
from html import escape

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η",
    "theta": "θ", "lambda": "λ", "mu": "μ", "sigma": "σ", "pi": "π",
}  # fmt: skip
FUNCTIONS = {"exp", "log", "tanh", "max", "min", "cos", "sin", "softmax", "act", "relu", "sigmoid"}
OPERATORS = {
    "(.)": "⊙", "<-": "←", "->": "→", "...": "…", "<=": "≤", ">=": "≥", "-": "−", "*": "·",
}  # fmt: skip
WORDS = {"at", "be", "by", "in", "is", "of", "on", "or", "to"}
"""Words of text as short as symbols."""
TOKEN = re.compile(
    r"\(\.\)|<-|->|<=|>=|\.\.\.|\d+(?:x\d+)+|\d+\.?\d*(?:e[+-]?\d+)?|[A-Za-z]+\d*'?|\s+|.",
    re.DOTALL,
)
PARTIAL = re.compile(r"d([A-Za-z]\d*'?)$")
"""dC, dz1: the parts of a derivative."""
SYMBOL = re.compile(r"([A-Za-z]+)(\d*)('?)$")


def mathml(line: str) -> str:
    """Return a line of plain notation as one `<math>` element; its text is kept as the label."""
    body = _row(TOKEN.findall(line))
    return f'<math aria-label="{escape(line, quote=True)}">{body}</math>'


def _row(tokens: list[str]) -> str:
    parts: list[str] = []
    place = 0
    while place < len(tokens):
        base, place = _atom(tokens, place)
        below, place = _script(tokens, place, "_")
        index, place = (
            _index(tokens, place)
            if base.startswith(("<mi>", "<msub>", "<mrow><mo>∂"))
            else ("", place)
        )
        above, place = _script(tokens, place, "^")
        under = below + ("<mo>,</mo>" if below and index else "") + index
        if under and above:
            base = f"<msubsup>{base}<mrow>{under}</mrow><mrow>{above}</mrow></msubsup>"
        elif under:
            base = f"<msub>{base}<mrow>{under}</mrow></msub>"
        elif above:
            base = f"<msup>{base}<mrow>{above}</mrow></msup>"
        parts.append(base)
    return "<mrow>" + "".join(parts) + "</mrow>"


def _atom(tokens: list[str], place: int) -> tuple[str, int]:
    """Return one symbol, number, operator or word, and the place after it."""
    token = tokens[place]
    if token[0].isalpha():
        return _name(token, _is_script(tokens, place + 1)), place + 1
    if token.isspace():
        if len(token) == 1 and not _between_symbols(tokens, place):
            return "", place + 1
        return f'<mspace width="{1.2 if len(token) > 1 else 0.25}em"/>', place + 1
    kind, text = (
        ("mn", token.replace("x", "×"))
        if token[0].isdigit()
        else ("mo", OPERATORS.get(token, token))
    )
    return f"<{kind}>{escape(text)}</{kind}>", place + 1


def _between_symbols(tokens: list[str], place: int) -> bool:
    """Return whether a space stands for a product, as in `di i`."""
    if not 0 < place < len(tokens) - 1:
        return False
    return _is_symbol(tokens[place + 1]) and (
        tokens[place - 1][0].isdigit() or _is_symbol(tokens[place - 1])
    )


def _is_symbol(token: str) -> bool:
    """Return whether a token is a letter, a Greek name or a function, not a word of text."""
    match = PARTIAL.match(token) or SYMBOL.match(token)
    if match is None:
        return False
    name = match[1]
    return (len(name) <= 2 or name in GREEK or name in FUNCTIONS) and token not in WORDS


def _name(token: str, scripted: bool) -> str:
    """Return a symbol with its digits below, a derivative's part, a sum, or a word of text."""
    if token == "sum":
        return "<mo>∑</mo>"
    part = PARTIAL.match(token)
    if part:
        return f"<mrow><mo>∂</mo>{_name(part[1], scripted)}</mrow>"
    match = SYMBOL.match(token)
    assert match is not None  # TOKEN makes words of this shape only
    name, digits, prime = match.groups()
    if not (_is_symbol(name) or digits or prime or scripted):
        return f"<mtext>&#160;{escape(name)}&#160;</mtext>"
    symbol = f"<mi>{escape(GREEK.get(name, name))}</mi>"
    if prime:
        symbol = f"<msup>{symbol}<mo>′</mo></msup>"
    return f"<msub>{symbol}<mn>{digits}</mn></msub>" if digits else symbol


def _is_script(tokens: list[str], place: int) -> bool:
    return place < len(tokens) and tokens[place] in ("_", "^", "[")


def _script(tokens: list[str], place: int, mark: str) -> tuple[str, int]:
    """Return what stands below or above, a symbol or a bracket's content, if the mark is there."""
    if place + 1 >= len(tokens) or tokens[place] != mark:
        return "", place
    if tokens[place + 1].isspace():  # a hat
        return f"<mo>{mark}</mo>", place + 1
    if tokens[place + 1] == "(":
        end = _closing(tokens, place + 1, "(", ")")
        return _row(tokens[place + 2 : end]), end + 1
    atom, place = _atom(tokens, place + 1)
    return atom, place


def _index(tokens: list[str], place: int) -> tuple[str, int]:
    if place >= len(tokens) or tokens[place] != "[":
        return "", place
    end = _closing(tokens, place, "[", "]")
    return _row(tokens[place + 1 : end]), end + 1


def _closing(tokens: list[str], place: int, opening: str, closing: str) -> int:
    """Return the place of the bracket that closes the one at `place`, or the last place."""
    depth = 0
    for i in range(place, len(tokens)):
        depth += (tokens[i] == opening) - (tokens[i] == closing)
        if depth == 0:
            return i
    return len(tokens) - 1
