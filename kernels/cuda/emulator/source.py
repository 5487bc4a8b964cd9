"""Reading a `.cu`: which kernels it has, and the few words that g++ does not take as they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)

_KERNEL = re.compile(
    r"(?P<template>template\s*<[^{};]*?>\s*)?"
    r'(?P<extern>extern\s+"C"\s+)?'
    r"(?:static\s+)?__global__\s+(?:void\s+)?"
    r"(?:__launch_bounds__\s*\((?P<bounds>(?:[^()]|\([^()]*\))*)\)\s*)?"
    r"(?:void\s+)?(?P<name>\w+)\s*\((?P<parameters>(?:[^()]|\([^()]*\))*)\)"
)

_ALIGN = r"(?:(?:__align__|alignas)\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
_DYNAMIC_SHARED = re.compile(
    rf"extern\s+{_ALIGN}__shared__\s+{_ALIGN}(?P<type>[\w:][\w:\s]*?)\s+{_ALIGN}"
    r"(?P<name>\w+)\s*\[\s*\]\s*;"
)

# A brace and, where it opens no function, what stands before it.
_BRACE = re.compile(r'(?P<scope>namespace\s*[\w:]*\s*|extern\s+"C"\s*)?\{|\}')

# g++ wants alignas before the word that __shared__ stands for.
_SHARED_ALIGNAS = re.compile(r"__shared__(?P<space>\s+)(?P<alignas>alignas\s*\([^()]*\))")

_ALLOW_RACE = re.compile(r"//\s*trine:\s*allow-race\((?P<reason>[^)\n]+)\)")


@dataclass(frozen=True)
class KernelText:
    """A `__global__` function as its source declares it."""

    name: str
    is_template: bool
    is_extern_c: bool
    bounds: str
    """The text in `__launch_bounds__(...)` before a comma; "0" where there is none."""
    parameters: tuple[str, ...]
    """The parameters' names."""


def strip_comments(code: str) -> str:
    """Return the code with its comments blanked out; lines and columns stay where they were."""

    def blank(match: re.Match[str]) -> str:
        text = match.group(0)
        return text if text.startswith('"') else re.sub(r"[^\n]", " ", text)

    return _COMMENT_OR_STRING.sub(blank, code)


def kernels(code: str) -> tuple[KernelText, ...]:
    """Return the kernels that a source without comments declares, in its order."""
    c_blocks = [_block_after(code, m.end() - 1) for m in re.finditer(r'extern\s+"C"\s*\{', code)]
    found = {}
    for match in _KERNEL.finditer(code):
        in_c_block = any(low < match.start() < high for low, high in c_blocks)
        text = KernelText(
            name=match["name"],
            is_template=match["template"] is not None,
            is_extern_c=match["extern"] is not None or in_c_block,
            bounds=(match["bounds"] or "0").split(",")[0].strip(),
            parameters=tuple(_parameter_names(match["parameters"])),
        )
        found[text.name] = text  # a declaration is replaced by its definition
    return tuple(found.values())


def _block_after(code: str, brace: int) -> tuple[int, int]:
    depth = 0
    for position in range(brace, len(code)):
        depth += {"{": 1, "}": -1}.get(code[position], 0)
        if depth == 0:
            return brace, position
    return brace, len(code)


def _parameter_names(text: str) -> list[str]:
    names, depth, part = [], 0, ""
    for character in text + ",":
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            words = re.findall(r"\w+", part)
            if words and words != ["void"]:
                names.append(words[-1])
            part = ""
        else:
            part += character
    return names


def for_gcc(code: str) -> str:
    """Return the code, without comments, in words that g++ takes; its lines stay where they were."""
    return _SHARED_ALIGNAS.sub(r"\g<alignas>\g<space>__shared__", _replace_dynamic_shared(code))


def _replace_dynamic_shared(code: str) -> str:
    """Return the code with `extern __shared__ T name[];` bound to the launch's dynamic memory."""

    def replace(match: re.Match[str]) -> str:
        pointer = f"(({match['type']}*)trine_dynamic_shared())"
        before = code[: match.start()]
        if _inside_function(before):
            return f"{match['type']}* const {match['name']} = {pointer};"
        # Outside of functions a variable would be set once, before any launch: a macro is not.
        line = before.count("\n") + match.group(0).count("\n") + 1
        return f"\n#define {match['name']} {pointer}\n#line {line}\n"

    return _DYNAMIC_SHARED.sub(replace, code)


def _inside_function(before: str) -> bool:
    """Return whether the text ends within braces other than those of namespaces and extern "C"."""
    open_braces: list[bool] = []
    for brace in _BRACE.finditer(before):
        if brace.group(0) != "}":
            open_braces.append(brace["scope"] is None)
        elif open_braces:
            open_braces.pop()
    return any(open_braces)


def allowed_race_lines(code: str) -> dict[int, str]:
    """Return the lines that carry `// trine: allow-race(reason)`, line number to reason."""
    allowed = {}
    for number, line in enumerate(code.splitlines(), start=1):
        match = _ALLOW_RACE.search(line)
        if match is not None:
            allowed[number] = match["reason"].strip()
    return allowed
