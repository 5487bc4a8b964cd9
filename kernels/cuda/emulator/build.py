"""Compiling: the runtime once, each `.cu` with instrumentation, both kept in the cache folder.

The instrumentation is g++'s own (`-fsanitize=...`), but linked with our functions instead of the
sanitizers' libraries: every load and store of a kernel calls the runtime. A cached module is named
by a hash of its source, the options, the emulator's own files and the compiler.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trine.kernels.cache import user_cache_root
from trine.kernels.cuda.emulator.report import CompileError, ToolchainError
from trine.kernels.cuda.emulator.source import (
    KernelText,
    allowed_race_lines,
    for_gcc,
    kernels,
    strip_comments,
)

NATIVE = Path(__file__).parent / "native"
INCLUDE = Path(__file__).parent.parent / "include"
"""The headers that the project's kernels share."""

TOOLS = ("g++", "readelf", "addr2line")
OLDEST_COMPILER = 11  # tells volatile accesses apart

_NOT_THE_KERNELS = (
    "trine_", "Trine", "typeinfo", "vtable", "completed.", "__",
)  # fmt: skip

RED_ZONE = 64
"""Bytes behind each static shared array that belong to none."""

FLAGS = (
    "-O2", "-g1", "-fPIC", "-w", "-fno-gnu-unique", "-fno-semantic-interposition",
    "-fno-strict-aliasing", "-ffp-contract=off",
    "-fno-exceptions", "-fno-asynchronous-unwind-tables", "-fno-optimize-sibling-calls",
    "-fstack-clash-protection",  # a large frame touches the guard page instead of jumping over it
)  # fmt: skip
CHECKS = (
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
    "--param=tsan-distinguish-volatile=1",
    "-fsanitize=bounds,alignment,signed-integer-overflow,shift,integer-divide-by-zero",
)

# What NVRTC takes and g++ has no need of.
_IGNORED = re.compile(
    r"-lineinfo|-G|-ewp|-dlto|-restrict|-device-int128|-use_fast_math|-pedantic-errors|"
    r"-(default-device|device-as-default-execution-space|extra-device-vectorization)|"
    r"-(fmad|ftz|prec-div|prec-sqrt|maxrregcount|ptxas-options|diag-\w+|gpu-architecture|arch|"
    r"split-compile|minimal|jump-table-density|Xptxas|extra-device-vectorization)(=.*)?"
)
_PASSED = re.compile(r"-(D|U|I|std=|include).*")
_LONG = {
    "-define-macro=": "-D", "-undefine-macro=": "-U", "-include-path=": "-I",
}  # fmt: skip


@dataclass(frozen=True)
class Symbol:
    """A variable of a module: a static shared array, or one in global or constant memory."""

    name: str
    """Empty for a flag of the compiler's."""
    offset: int
    size: int
    kind: str
    """ "shared", "global" or "constant"."""


@dataclass(frozen=True)
class Build:
    """A compiled module and what its source says."""

    library: Path
    symbols: tuple[Symbol, ...]
    kernels: tuple[KernelText, ...]
    allowed_races: dict[int, str]


def unavailable() -> str | None:
    """Return why the emulator cannot run here, or None if it can."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return f"it needs Linux on x86-64, and this is {sys.platform} on {platform.machine()}"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"it needs {' and '.join(missing)} (Debian: apt install g++ binutils)"
    if _compiler_version() < OLDEST_COMPILER:
        return f"it needs g++ {OLDEST_COMPILER} or later, and this is {_compiler_version()}"
    return None


@lru_cache(maxsize=1)
def _compiler_version() -> int:
    done = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().split(".")[0]
    return int(major) if major.isdigit() else 0


def require() -> None:
    """Raise ToolchainError, with what to do, where the emulator cannot run."""
    reason = unavailable()
    if reason is not None:
        raise ToolchainError(
            f"[emulate] expected a machine that can run CUDA kernels on the CPU, but {reason}. "
            "Install what is missing, or check on a GPU without --emulate."
        )


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Return the folder of this version's compiled modules, made on first use.

    Where it cannot be written, a temporary one serves until the process ends.
    """
    folder = user_cache_root() / "cuda-emulator" / _tools_hash()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        _temporary.append(tempfile.TemporaryDirectory(prefix="trine-cuda-emulator-"))
        return Path(_temporary[-1].name)


def clear_cache() -> None:
    """Remove the compiled modules of all versions; those that are loaded stay so."""
    shutil.rmtree(user_cache_root() / "cuda-emulator", ignore_errors=True)
    cache_folder.cache_clear()
    runtime_library.cache_clear()
    _precompiled.cache_clear()


_failures: dict[str, str] = {}
"""What the compiler said of modules that failed: a check asks for each many times."""

_temporary: list[tempfile.TemporaryDirectory[str]] = []


@lru_cache(maxsize=1)
def _tools_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([*NATIVE.rglob("*.h"), *NATIVE.rglob("*.cpp"), Path(__file__)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    digest.update((version.stdout + " ".join(_machine_flags())).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def _machine_flags() -> tuple[str, ...]:
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    except OSError:
        return ()
    modern = {"avx2", "fma", "bmi2", "f16c", "movbe"} <= set(flags)
    return ("-march=x86-64-v3",) if modern else ()


@lru_cache(maxsize=1)
def runtime_library() -> Path:
    """Return the compiled runtime; raises ToolchainError where it cannot be compiled."""
    require()
    library = cache_folder() / "libtrine_emulator.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
            made = Path(work) / "runtime.so"
            command = ["g++", "-O2", "-g1", "-fPIC", "-shared", "-std=c++17", *_machine_flags()]
            command += [f"-Wl,-soname,{library.name}", str(NATIVE / "runtime.cpp"), "-lrt"]
            done = subprocess.run(
                [*command, "-o", str(made)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ToolchainError(
                    f"[emulate] expected the runtime to compile, but g++ says: {done.stderr[:2000]}"
                )
            os.replace(made, library)
    return library


def compiler_options(options: tuple[str, ...]) -> list[str]:
    """Return g++'s form of NVRTC's options; raises CompileError for one that NVRTC has not."""
    result = []
    words = iter(options)
    for word in words:
        option = "-" + word.lstrip("-")
        for long, short in _LONG.items():
            option = option.replace(long, short, 1) if option.startswith(long) else option
        if option in ("-D", "-U", "-I", "-include"):
            option += next(words, "")
        if _PASSED.fullmatch(option):
            result.append(option)
        elif not _IGNORED.fullmatch(option):
            raise CompileError(
                f"[emulate] expected an option of NVRTC, got {word!r}. Use -D, -I or -std."
            )
    if not any(option.startswith("-std=") for option in result):
        result.append("-std=c++17")
    return result


def build(
    code: str,
    *,
    name: str = "kernel.cu",
    options: tuple[str, ...] = (),
    name_expressions: tuple[str, ...] = (),
    checked: bool = True,
) -> Build:
    """Compile CUDA C++, or find it in the cache.

    Raises CompileError with the compiler's message, ToolchainError without g++ on x86-64.
    """
    runtime = runtime_library()
    clean = strip_comments(code)
    declared = kernels(clean)
    source = _translation_unit(clean, name, declared, name_expressions)
    general = [*FLAGS, *_machine_flags(), *(CHECKS if checked else ())]
    chosen = compiler_options(options)
    standard = next(option for option in chosen if option.startswith("-std="))
    flags = [*general, *chosen, f"-I{NATIVE / 'include'}", f"-I{INCLUDE}"]
    flags += ["-include", str(_precompiled((*general, standard)) / "device.h")]
    key = _key(source, clean, flags)
    library = cache_folder() / f"{key}.so"
    notes = library.with_suffix(".json")
    if not (library.exists() and notes.exists()):
        if key in _failures:
            raise CompileError(_failures[key])
        with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
            try:
                made = _compile(source, Path(name).name, flags, runtime, Path(work))
            except CompileError as error:
                _failures[key] = str(error)
                raise
            found = [vars(symbol) for symbol in _symbols(made)]
            described = Path(work) / "notes.json"
            described.write_text(json.dumps(found))
            os.replace(described, notes)
            os.replace(made, library)
    symbols = tuple(Symbol(**entry) for entry in json.loads(notes.read_text()))
    return Build(library, symbols, declared, allowed_race_lines(code))


@lru_cache
def _precompiled(flags: tuple[str, ...]) -> Path:
    """Return a folder with device.h and its compiled form: a kernel then takes a third of the time.

    Where options of a kernel do not fit the compiled form, g++ takes the header itself.
    """
    name = hashlib.sha256("\0".join(flags).encode()).hexdigest()[:12]
    folder = cache_folder() / f"header-{name}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
            made = Path(work) / "header"
            made.mkdir()
            for header in NATIVE.glob("device*.h"):
                shutil.copy(header, made)
            header = made / "device.h"
            _run_compiler(["g++", *flags, "-x", "c++-header", str(header), "-o", f"{header}.gch"])
            with contextlib.suppress(OSError):  # another process was quicker
                made.rename(folder)
    return folder


def _key(source: str, clean: str, flags: list[str]) -> str:
    """Return the name of a module: by what its headers say, wherever they lie."""
    digest = hashlib.sha256(source.encode())
    for flag in flags:
        digest.update(b"\0" + (b"-I" if flag.startswith("-I") else flag.encode()))
    folders = [Path(flag[2:]) for flag in flags if flag.startswith("-I")]
    for text in _headers(clean, folders):
        digest.update(b"\0" + text)
    return digest.hexdigest()[:24]


def _headers(code: str, folders: list[Path]) -> list[bytes]:
    """Return the contents of the headers in folders that the code names, and that these name."""
    found: dict[Path, bytes] = {}
    waiting = [(code, folders)]
    while waiting:
        text, places = waiting.pop()
        for name in re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', text):
            path = next((p / name for p in places if (p / name).is_file()), None)
            if path is not None and path not in found:
                found[path] = path.read_bytes()
                waiting.append((found[path].decode(errors="replace"), [path.parent, *folders]))
    return list(found.values())


def _translation_unit(
    clean: str, name: str, declared: tuple[KernelText, ...], expressions: tuple[str, ...]
) -> str:
    by_name = {kernel.name: kernel for kernel in declared}
    exports = []
    for kernel in declared:
        if kernel.is_extern_c and not kernel.is_template:
            exports.append(f'TRINE_EXPORT("{kernel.name}", {kernel.bounds}, {kernel.name})')
    for expression in expressions:
        base = expression.split("<")[0].split("::")[-1].strip()
        text = by_name.get(base)
        bounds = text.bounds if text is not None else "0"
        # The bounds of a template may name its parameters, which only the template knows.
        usable = text is not None and (not text.is_template or bounds.isdigit())
        exports.append(f'TRINE_EXPORT("{expression}", {bounds if usable else 0}, {expression})')
    table = ",\n".join([*exports, "{0, 0, 0, 0, 0}"])
    return (
        f'#line 1 "{name}"\n{for_gcc(clean)}\n#line 1 "exports of {name}"\n'
        f'extern "C" __attribute__((visibility("default"))) const TrineKernel trine_kernels[] = {{\n'
        f"{table}}};\n"
        "static thread_local int trine_tls_start;\n"
        'extern "C" void* trine_touch_tls() { return (void*)&trine_tls_start; }\n'
    )


def _compile(source: str, name: str, flags: list[str], runtime: Path, work: Path) -> Path:
    text, assembly, library = work / name, work / "kernel.s", work / "kernel.so"
    text.write_text(source)  # under the user's name, which debug information repeats
    _run_compiler(["g++", *flags, "-S", "-x", "c++", str(text), "-o", str(assembly)])
    assembly.write_text(_with_red_zones(assembly.read_text()))
    # -Bsymbolic: a kernel called `step` must not become the C library's function of that name.
    link = ["g++", "-shared", "-Wl,-Bsymbolic", str(assembly), "-o", str(library)]
    _run_compiler([*link, str(runtime), f"-Wl,-rpath,{runtime.parent}"])
    return library


def _run_compiler(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(
            f"[emulate] expected CUDA C++ that compiles, but the compiler says:\n{done.stderr[:6000]}"
        )


def _with_red_zones(assembly: str) -> str:
    """Return the assembly with a gap behind each thread_local: they are the shared arrays."""
    result, in_tls = [], False
    for line in assembly.splitlines():
        result.append(line)
        if line.startswith(("\t.section", "\t.text", "\t.data", "\t.bss")):
            in_tls = ".tbss" in line or ".tdata" in line
        elif in_tls and line.startswith("\t.zero"):
            result.append(f"\t.zero\t{RED_ZONE}")
    return "\n".join(result) + "\n"


def _symbols(library: Path) -> list[Symbol]:
    done = subprocess.run(
        ["readelf", "-SsWC", str(library)], capture_output=True, text=True, check=True
    )
    sections: dict[str, str] = {}
    found: dict[tuple[int, str], Symbol] = {}
    for line in done.stdout.splitlines():
        section = re.match(r"\s*\[\s*(\d+)\]\s+(\S+)", line)
        if section is not None:
            sections[section[1]] = section[2]
            continue
        entry = re.match(
            r"\s*\d+:\s+([0-9a-f]+)\s+(\S+)\s+(TLS|OBJECT)\s+\S+\s+\S+\s+(\d+)\s+(.+)", line
        )
        if entry is None:
            continue
        name = entry[5].split("@")[0].strip()
        short = re.sub(r"\s*\[.*\]$", "", name.rsplit("::", 1)[-1])
        place = sections.get(entry[4], "")
        if name.startswith(_NOT_THE_KERNELS) or place.startswith(
            (".dynamic", ".got", ".init_array")
        ):
            continue
        if name.startswith("guard variable"):
            short = ""  # the compiler's own, which the runtime lets pass
        kind = "global"
        if entry[3] == "TLS":
            kind = "shared"
        elif place == "trine_constant" or place.startswith((".rodata", ".data.rel.ro")):
            kind = "constant"
        size = int(entry[2], 0)
        if size:
            found[int(entry[1], 16), kind] = Symbol(short, int(entry[1], 16), size, kind)
    return sorted(found.values(), key=lambda s: (s.kind, s.offset))
