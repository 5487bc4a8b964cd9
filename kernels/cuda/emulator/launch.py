"""Launching: load a compiled module, match the arguments with its parameters, run, report."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.kernels.cuda.emulator import build as building
from trine.kernels.cuda.emulator.report import (
    AllowedRace,
    ArgumentError,
    KernelError,
    LaunchError,
    Place,
    source_line,
)

MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_THREADS = 1024
DEFAULT_SHARED_BYTES = 48 * 1024
MAX_SHARED_BYTES = 227 * 1024
"""What a block may have where the kernel asks for it, on compute capability 9.0."""

ORDERS = ("forward", "reverse", "shuffled")


@dataclass(frozen=True)
class Settings:
    """How kernels run.

    Without `checked` races and reads of unwritten shared memory are not looked for and most
    accesses not judged, which is several times faster. `order` is that of threads and blocks.
    """

    checked: bool = True
    order: str = "forward"
    seed: int = 0
    access_budget: int = 2_000_000_000
    seconds_budget: float = 120.0


settings = Settings()
"""In force where a launch names none; replace it with `configure`."""


def configure(**changes: Any) -> Settings:
    """Change the settings in force and return those before."""
    global settings
    before, settings = settings, replace(settings, **changes)
    if settings.order not in ORDERS:
        settings, wrong = before, settings.order
        raise ValueError(f"[emulate] expected an order among {', '.join(ORDERS)}, got {wrong!r}.")
    return before


@dataclass(frozen=True)
class DeviceMemory:
    """A pointer argument that is no array: an address and the bytes from there on."""

    address: int
    nbytes: int
    owner: Any = None


@dataclass(frozen=True)
class Counts:
    """What the last launch did."""

    accesses: int
    barriers: int
    warp_operations: int
    switches: int


class _Parameter(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("is_const", ctypes.c_int),
        ("element_size", ctypes.c_int),
        ("element_kind", ctypes.c_int),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("parameter_count", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("launch_bounds", ctypes.c_int),
    ]


class _Settings(ctypes.Structure):
    _fields_ = [
        ("checked", ctypes.c_int),
        ("cooperative", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("collect_races", ctypes.c_int),
        ("access_budget", ctypes.c_longlong),
        ("time_budget", ctypes.c_double),
    ]


class _Fault(ctypes.Structure):
    _fields_ = [
        ("raised", ctypes.c_bool),
        ("kind", ctypes.c_char * 40),
        ("message", ctypes.c_char * 1600),
        ("array", ctypes.c_char * 128),
        ("block", ctypes.c_uint * 3),
        ("thread", ctypes.c_uint * 3),
        ("offset", ctypes.c_longlong),
        ("pc", ctypes.c_size_t),
        ("other_pc", ctypes.c_size_t),
    ]


STRUCT, INTEGER, FLOAT, POINTER = range(4)
_KIND_NAMES = {STRUCT: "a struct", INTEGER: "an integer", FLOAT: "a floating-point number"}
_DTYPE_KINDS = {"f": FLOAT, "i": INTEGER, "u": INTEGER, "b": INTEGER, "V": STRUCT}

_allowed_races: dict[AllowedRace, int] = {}


def allowed_races() -> dict[AllowedRace, int]:
    """Return the races met at lines that allow them, with how often, for a summary of a run."""
    return dict(_allowed_races)


_lock = threading.Lock()
_runtime: Any = None


def _load_runtime() -> Any:
    global _runtime  # noqa: PLW0603  loaded once; the kernels' modules link with it
    if _runtime is None:
        library = ctypes.CDLL(str(building.runtime_library()))
        size, pointer, text = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
        library.trine_bind.argtypes = [size, pointer]
        library.trine_bind.restype = size
        library.trine_add_symbol.argtypes = [size, size, text]
        library.trine_add_region.argtypes = [size, size, ctypes.c_uint, ctypes.c_int, text]
        library.trine_launch.argtypes = [pointer] * 4 + [size, ctypes.POINTER(_Settings)]
        library.trine_fault.restype = ctypes.POINTER(_Fault)
        library.trine_race.restype = ctypes.POINTER(_Fault)
        library.trine_counts.restype = ctypes.POINTER(ctypes.c_longlong)
        library.trine_shared_used.restype = size
        _runtime = library
    return _runtime


class Module:
    """A compiled `.cu`."""

    def __init__(
        self,
        code: str,
        *,
        name: str = "kernel.cu",
        options: Sequence[str] = (),
        name_expressions: Sequence[str] = (),
        checked: bool | None = None,
    ) -> None:
        """Compile `code`; kernels that are not `extern "C"` are named by `name_expressions`.

        A first line `#line 1 "pool.cu"` gives the name that reports use.

        Raises CompileError with the compiler's message, ToolchainError without g++ on x86-64.
        """
        self.checked = settings.checked if checked is None else checked
        named = re.match(r'#line 1 "([^"\n]+)"\n', code)
        if named is not None:
            name, code = named[1], code[named.end() :]
        self.name = name
        self.build = building.build(
            code,
            name=name,
            options=tuple(options),
            name_expressions=tuple(name_expressions),
            checked=self.checked,
        )
        _load_runtime()
        self.library = ctypes.CDLL(str(self.build.library))
        self.allowed_races: list[AllowedRace] = []
        """The races that this module's launches met at lines which allow them."""
        self._kernels: dict[str, CompiledKernel] = {}
        start = ctypes.addressof(ctypes.c_char.in_dll(self.library, "trine_kernels"))
        table = ctypes.cast(start, ctypes.POINTER(_Kernel))
        index = 0
        while table[index].name:
            entry = table[index]
            self._kernels[entry.name.decode()] = CompiledKernel(self, entry)
            index += 1

    def kernel(self, name: str) -> CompiledKernel:
        """Return a kernel by its name or name expression; raises LaunchError if there is none."""
        if name not in self._kernels:
            known = ", ".join(self._kernels) or "none"
            raise LaunchError(
                f"[{name}] expected a kernel of {self.name} (it has {known}). Declare it "
                'extern "C", or name it in name_expressions.'
            )
        return self._kernels[name]

    def kernels(self) -> tuple[CompiledKernel, ...]:
        """Return the kernels that can be launched."""
        return tuple(self._kernels.values())

    def variable(self, name: str) -> DeviceMemory:
        """Return a `__device__` or `__constant__` variable; raises LaunchError if there is none."""
        for symbol in self.build.symbols:
            if symbol.kind != "shared" and symbol.name == name:
                return DeviceMemory(self._base() + symbol.offset, symbol.size, self)
        raise LaunchError(f"[{name}] expected a variable of {self.name}, found none of that name.")

    def _base(self) -> int:
        with _lock:
            return int(self._bind())

    def _bind(self) -> int:
        touch = ctypes.cast(self.library.trine_touch_tls, ctypes.c_void_p)
        address = ctypes.addressof(ctypes.c_char.in_dll(self.library, "trine_kernels"))
        return int(_load_runtime().trine_bind(address, touch))


class CompiledKernel:
    """A kernel of a module; launch it with `launch`."""

    def __init__(self, module: Module, entry: _Kernel) -> None:
        self.module = module
        self.name = entry.name.decode()
        self.launch_bounds = int(entry.launch_bounds)
        """The largest block by `__launch_bounds__`, 0 where none is declared."""
        self.max_dynamic_shared_bytes = DEFAULT_SHARED_BYTES
        base = self.name.split("<")[0].split("::")[-1].strip()
        texts = {text.name: text for text in module.build.kernels}
        names = texts[base].parameters if base in texts else ()
        count = int(entry.parameter_count)
        if len(names) != count:
            names = tuple(f"parameter {i}" for i in range(count))
        self.parameter_names = names
        self._parameters = [entry.parameters[i] for i in range(count)]
        self._call = entry.call

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared_bytes: int = 0,
        cooperative: bool = False,
        chosen: Settings | None = None,
    ) -> Counts:
        """Run the kernel on NumPy arrays, DeviceMemory and numbers; return what it did.

        An array argument may be accessed from its first to its last element, a `const T*` only
        read. A cooperative launch has all blocks together, for barriers of the grid.

        Raises ArgumentError for arguments that do not fit, LaunchError for a launch that the device
        would refuse, KernelError for what the kernel does wrong.
        """
        chosen = settings if chosen is None else chosen
        grid3, block3 = self._check_limits(grid, block, shared_bytes)
        arrays, values = self._match(arguments)
        pointers = (ctypes.c_void_p * (len(values) + 1))(*map(ctypes.addressof, values))
        native = _Settings(
            self.module.checked and chosen.checked,
            cooperative,
            ORDERS.index(chosen.order),
            chosen.seed,
            bool(self.module.build.allowed_races),
            chosen.access_budget,
            chosen.seconds_budget,
        )
        runtime = _load_runtime()
        with _lock:
            base = self.module._bind()
            labels = []  # the runtime keeps pointers to them
            for symbol in self.module.build.symbols:
                labels.append(symbol.name.encode())
                if symbol.kind == "shared":
                    runtime.trine_add_symbol(symbol.offset, symbol.size, labels[-1])
                else:
                    low, is_global = base + symbol.offset, symbol.kind == "global"
                    runtime.trine_add_region(low, symbol.size, 4, is_global, labels[-1])
            for region in _merge(arrays):
                labels.append(region.name.encode())
                low, size = region.low, region.high - region.low
                runtime.trine_add_region(low, size, region.granule, region.writable, labels[-1])
            failed = runtime.trine_launch(
                self._call, pointers, (ctypes.c_uint * 3)(*grid3), (ctypes.c_uint * 3)(*block3),
                shared_bytes, ctypes.byref(native),
            )  # fmt: skip
            if failed:
                self._report(runtime)
            total = int(runtime.trine_shared_used()) + shared_bytes
            counts = Counts(*runtime.trine_counts()[0:4])
        limit = max(DEFAULT_SHARED_BYTES, self.max_dynamic_shared_bytes)
        if total - shared_bytes > DEFAULT_SHARED_BYTES or total > limit:
            raise LaunchError(
                f"[{self.name}] expected at most {DEFAULT_SHARED_BYTES} bytes of static and "
                f"{limit} of all shared memory, but it uses {total - shared_bytes} and {total}. Use "
                "smaller tiles, or dynamic shared memory with max_dynamic_shared_size_bytes."
            )
        return counts

    def check(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared_bytes: int = 0,
    ) -> None:
        """Raise what `launch` would raise before the kernel runs."""
        self._check_limits(grid, block, shared_bytes)
        self._match(arguments)

    def _check_limits(
        self, grid: Sequence[int], block: Sequence[int], shared_bytes: int
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        shapes = []
        for label, given, limits in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
            sizes = tuple(int(size) for size in given)
            full = (*sizes, 1, 1, 1)[:3]
            fits = all(1 <= s <= limit for s, limit in zip(full, limits, strict=True))
            if not 1 <= len(sizes) <= 3 or not fits:
                raise LaunchError(
                    f"[{self.name}] expected a {label} of 1 to {limits} in each direction, got "
                    f"{sizes}. Spread the work differently over the directions."
                )
            shapes.append((full[0], full[1], full[2]))
        threads = shapes[1][0] * shapes[1][1] * shapes[1][2]
        most = self.launch_bounds or MAX_THREADS
        if threads > min(most, MAX_THREADS):
            what = f"__launch_bounds__({most})" if self.launch_bounds else "the device"
            raise LaunchError(
                f"[{self.name}] expected a block of at most {min(most, MAX_THREADS)} threads by "
                f"{what}, got {shapes[1]} = {threads}. Use smaller blocks."
            )
        if not 0 <= shared_bytes <= self.max_dynamic_shared_bytes:
            raise LaunchError(
                f"[{self.name}] expected at most {self.max_dynamic_shared_bytes} bytes of dynamic "
                f"shared memory, got {shared_bytes}. Set max_dynamic_shared_size_bytes, up to "
                f"{MAX_SHARED_BYTES}."
            )
        return shapes[0], shapes[1]

    def _match(self, arguments: Sequence[Any]) -> tuple[list[_Extent], list[Any]]:
        """Return the memory that the arguments name, and the bytes that the kernel is passed."""
        if len(arguments) != len(self._parameters):
            raise ArgumentError(
                f"[{self.name}] expected {len(self._parameters)} arguments "
                f"({', '.join(self.parameter_names)}), got {len(arguments)}. Pass one for each "
                "parameter."
            )
        extents: list[_Extent] = []
        values: list[Any] = []
        for name, parameter, value in zip(
            self.parameter_names, self._parameters, arguments, strict=True
        ):
            if parameter.kind == POINTER:
                extent = self._pointer(name, parameter, value)
                values.append(ctypes.c_void_p(extent.address))
                if extent.high > extent.low:
                    extents.append(extent)
            else:
                values.append(self._scalar(name, parameter, value))
        return extents, values

    def _pointer(self, name: str, parameter: _Parameter, value: Any) -> _Extent:
        writable = not parameter.is_const
        if value is None or (isinstance(value, (int, np.integer)) and int(value) == 0):
            return _Extent(0, 0, 0, writable, 1, name)
        if isinstance(value, DeviceMemory):
            low = value.address
            return _Extent(low, low, low + value.nbytes, writable, 4, name)
        if not isinstance(value, np.ndarray):
            raise ArgumentError(
                f"[{self.name}] expected an array for the pointer {name}, got "
                f"{type(value).__name__}. Pass an array of the device."
            )
        kind = _DTYPE_KINDS.get(value.dtype.kind, STRUCT)
        plain = parameter.element_kind in (INTEGER, FLOAT)
        if plain and (
            (parameter.element_kind, parameter.element_size) != (kind, value.dtype.itemsize)
        ):
            raise ArgumentError(
                f"[{self.name}] expected an array of {parameter.element_size}-byte "
                f"{_KIND_NAMES[parameter.element_kind].split(' ', 1)[1]}s for {name}, got "
                f"{value.dtype}. Pass an array of the declared type, or a view."
            )
        address = value.ctypes.data
        low, high = np.lib.array_utils.byte_bounds(value) if value.size else (address, address)
        return _Extent(address, low, high, writable, min(value.dtype.itemsize, 4), name)

    def _scalar(self, name: str, parameter: _Parameter, value: Any) -> Any:
        wanted = f"{_KIND_NAMES[parameter.kind]} of {parameter.size} bytes"
        number = _as_number(value, parameter)
        if number is None:
            raise ArgumentError(
                f"[{self.name}] expected {wanted} for {name}, got {type(value).__name__}. Pass a "
                "NumPy number of that type."
            )
        kind = _DTYPE_KINDS.get(number.dtype.kind)
        if kind != parameter.kind or number.dtype.itemsize != parameter.size:
            raise ArgumentError(
                f"[{self.name}] expected {wanted} for {name}, got {number.dtype} ({value}). Pass a "
                "NumPy number of that type."
            )
        return ctypes.create_string_buffer(number.tobytes(), number.nbytes)

    def _report(self, runtime: Any) -> None:
        """Raise for the first fault that its line does not allow; note the allowed ones."""
        faults = [runtime.trine_race(i).contents for i in range(runtime.trine_race_count())]
        ending = runtime.trine_fault()
        if ending:
            faults.append(ending.contents)
        for fault in faults:
            library = self.module.build.library
            found = (source_line(library, fault.pc), source_line(library, fault.other_pc))
            lines = tuple(line for line in found if line)
            kind = fault.kind.decode()
            if kind == "race" and self._is_allowed(lines):
                continue
            if kind == "launch-limit":
                raise LaunchError(f"[{self.name}] expected {fault.message.decode()}.")
            place = Place(
                tuple(fault.block), tuple(fault.thread), fault.array.decode(), fault.offset, lines
            )
            raise KernelError(self.name, kind, fault.message.decode(), place)

    def _is_allowed(self, lines: tuple[str, ...]) -> bool:
        for line in lines:
            file, _, number = line.rpartition(":")
            reason = self.module.build.allowed_races.get(int(number)) if number.isdigit() else None
            if reason is not None and file == Path(self.module.name).name:
                race = AllowedRace(self.name, line, reason)
                self.module.allowed_races.append(race)
                _allowed_races[race] = _allowed_races.get(race, 0) + 1
                return True
        return False


@dataclass(frozen=True)
class _Extent:
    """Memory that a kernel may access by one argument."""

    address: int
    low: int
    high: int
    writable: bool
    granule: int
    name: str


def _merge(extents: list[_Extent]) -> list[_Extent]:
    """Return the extents with overlapping ones united: a place has one shadow."""
    merged: list[_Extent] = []
    for extent in sorted(extents, key=lambda e: e.low):
        if merged and extent.low < merged[-1].high:
            last = merged.pop()
            merged.append(
                _Extent(
                    last.address,
                    last.low,
                    max(last.high, extent.high),
                    last.writable or extent.writable,
                    min(last.granule, extent.granule),
                    f"{last.name} and {extent.name}",
                )
            )
        else:
            merged.append(extent)
    return merged


def _as_number(value: Any, parameter: _Parameter) -> npt.NDArray[Any] | None:
    """Return a NumPy value of what CuPy would pass, or None for what it passes not."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return np.asarray(value)
    if isinstance(value, bool):
        return np.asarray(np.bool_(value))
    if isinstance(value, float):
        return np.asarray(np.float64(value))
    if isinstance(value, int) and parameter.kind == INTEGER:
        # CuPy passes 8 bytes, of which a narrower parameter reads the lower ones.
        bits = 8 * parameter.size
        if -(2 ** (bits - 1)) <= value < 2**bits:
            word = (value % 2**bits).to_bytes(parameter.size, "little")
            return np.frombuffer(word, f"u{parameter.size}").reshape(())
    return None
