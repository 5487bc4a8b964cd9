"""Counter-based random numbers: the same bits on every backend, from any number of threads.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a
128-bit counter and a 64-bit key into four random 32-bit words. Trine fills them so:

    key      = (seed low, seed high)
    counter  = (block, draw low, draw high, stream)

`seed` is the user's; `stream` names the purpose and the module (`stream_id`); `draw` counts the
draws of one generator; `block` runs over the elements of one draw. Word i % 4 of block i // 4
belongs to element i; a float64 uniform takes the two words 2i and 2i + 1. A draw's five words
(seed low, seed high, draw low, draw high, stream) are its *key array*, which may lie on a device.

Uniforms are multiples of 2^-24 (float32) or 2^-53 (float64) in [0, 1). Normals come from one word
through Wichura's rational approximation of the inverse normal distribution (Algorithm AS 241, 1988),
evaluated in float64 by separate multiplications and additions and with a logarithm of our own, so
that they too are the same bits everywhere.

The functions take `xp`, the array module (numpy or cupy), where a backend shares them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.dtypes import Array, DType, as_dtype, float32, float64

PHILOX_M0 = 0xD2511F53
PHILOX_M1 = 0xCD9E8D57
PHILOX_W0 = 0x9E3779B9
PHILOX_W1 = 0xBB67AE85
PHILOX_ROUNDS = 10
KEY_WORDS = 5
MAX_WORDS = 1 << 34
"""One draw has at most 2^32 blocks of four words."""

_LOW = 0xFFFFFFFF


def stream_id(purpose: str, path: str = "") -> int:
    """Return the 32-bit stream of a purpose ("init", "dropout", "shuffle", ...) and a module path.

    The first four bytes, little-endian, of SHA-256 of "purpose:path".
    """
    digest = hashlib.sha256(f"{purpose}:{path}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def make_key(seed: int, stream: int, counter: int = 0) -> npt.NDArray[np.uint32]:
    """Return the key array, uint32 (5,), of draw number `counter` of a stream under a seed.

    Raises ValueError unless seed and counter fit in 64 bits and stream in 32.
    """
    for name, value, bits in (("seed", seed, 64), ("counter", counter, 64), ("stream", stream, 32)):
        if not 0 <= value < 1 << bits:
            raise ValueError(
                f"[random] expected {name} from 0 to 2^{bits} - 1, got {value}. Choose a smaller one."
            )
    words = (seed & _LOW, seed >> 32, counter & _LOW, counter >> 32, stream)
    return np.array(words, dtype=np.uint32)


def philox4x32(
    counter: tuple[Array, Array, Array, Array], key: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Return the four random words of each counter, all uint64 arrays or scalars holding 32 bits.

    Ten rounds of  hi0, lo0 = M0 * c0;  hi1, lo1 = M1 * c2;
    c = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0);  k += (W0, W1).
    """
    u64 = np.uint64
    low, half = u64(_LOW), u64(32)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        product0 = c0 * u64(PHILOX_M0)
        product1 = c2 * u64(PHILOX_M1)
        c0 = (product1 >> half) ^ c1 ^ k0
        c2 = (product0 >> half) ^ c3 ^ k1
        c1 = product1 & low
        c3 = product0 & low
        k0 = (k0 + u64(PHILOX_W0)) & low
        k1 = (k1 + u64(PHILOX_W1)) & low
    return c0, c1, c2, c3


def bits(key: Array, n: int, xp: Any = np) -> Array:
    """Return the first n words of a draw, uint32 (n,).

    Raises ValueError if n is negative or above 2^34.
    """
    if not 0 <= n <= MAX_WORDS:
        raise ValueError(f"[random] expected 0 to 2^34 elements a draw, got {n}. Draw in parts.")
    words = key.astype(xp.uint64)
    block = xp.arange((n + 3) // 4, dtype=xp.uint64)
    # The draw's words stay arrays of shape (1,), so that a device key is never read by the host.
    counter = (block, words[2:3], words[3:4], words[4:5])
    mixed = philox4x32(counter, (words[0:1], words[1:2]))
    return xp.stack(mixed, axis=1).reshape(-1)[:n].astype(xp.uint32)


def words_needed(size: int, dtype: DType) -> int:
    """Return how many 32-bit words `size` uniforms of a dtype take."""
    return size * 2 if dtype == float64 else size


def uniform_from_bits(words: Array, dtype: DType, xp: Any = np) -> Array:
    """Return uniforms in [0, 1): word >> 8 times 2^-24, or 53 bits of two words times 2^-53."""
    if dtype == float32:
        return (words >> 8).astype(xp.float32) * xp.float32(2.0**-24)
    pairs = words.reshape(-1, 2).astype(xp.uint64)
    mantissa = (pairs[:, 0] >> np.uint64(5)) * np.uint64(1 << 26) + (pairs[:, 1] >> np.uint64(6))
    return mantissa.astype(xp.float64) * (2.0**-53)


# Wichura's coefficients, lowest power first: central region, middle tail, far tail.
AS241_CENTRAL = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
     1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
     3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
     5.2264952788528545610e3),
)  # fmt: skip
AS241_MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
     3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)  # fmt: skip
LOG_SERIES = tuple(1.0 / (2 * k + 1) for k in range(12))
"""atanh(s) / s = sum s^2k / (2k + 1); twelve terms reach 1e-17 for |s| <= 0.172."""


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    result = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result = (result + coefficient) * x
    return result + coefficients[0]


def _log(x: Array, xp: Any) -> Array:
    """Natural logarithm of positive float64 by exact scaling and the series of atanh."""
    mantissa, exponent = xp.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = xp.where(small, mantissa * 2.0, mantissa)
    exponent = exponent.astype(xp.float64) - small.astype(xp.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * math.log(2.0) + (s * 2.0) * _polynomial(LOG_SERIES, s * s)


def normal_from_bits(words: Array, dtype: DType, xp: Any = np) -> Array:
    """Return standard normals, one a word: the inverse distribution at (word + 1/2) / 2^32.

    |z| is below 6.34, where AS 241's far tail is not reached.
    """
    p = (words.astype(xp.float64) + 0.5) * 2.0**-32
    q = p - 0.5
    r_central = 0.180625 - q * q
    central = (
        q * _polynomial(AS241_CENTRAL[0], r_central) / _polynomial(AS241_CENTRAL[1], r_central)
    )
    tail_p = xp.where(q < 0.0, p, 1.0 - p)
    r = xp.sqrt(-_log(tail_p, xp)) - 1.6
    tail = _polynomial(AS241_MIDDLE[0], r) / _polynomial(AS241_MIDDLE[1], r)
    z = xp.where(xp.abs(q) <= 0.425, central, xp.where(q < 0.0, -tail, tail))
    return z.astype(dtype)


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def uniform(
    key: npt.NDArray[np.uint32], shape: tuple[int, ...], dtype: npt.DTypeLike | None = None
) -> Array:
    """Return uniforms in [0, 1) of a shape as a NumPy array."""
    kind = as_dtype(dtype)
    n = _size(shape)
    return uniform_from_bits(bits(key, words_needed(n, kind)), kind).reshape(shape)


def normal(
    key: npt.NDArray[np.uint32], shape: tuple[int, ...], dtype: npt.DTypeLike | None = None
) -> Array:
    """Return standard normals of a shape as a NumPy array."""
    return normal_from_bits(bits(key, _size(shape)), as_dtype(dtype)).reshape(shape)


def bernoulli(key: npt.NDArray[np.uint32], p: float, shape: tuple[int, ...]) -> Array:
    """Return booleans that are true with probability p (where a float32 uniform is below p)."""
    return uniform(key, shape) < np.float32(p)


def integers(key: npt.NDArray[np.uint32], low: int, high: int, shape: tuple[int, ...]) -> Array:
    """Return int64 values in [low, high), each floor(u * (high - low)) of a float64 uniform.

    Raises ValueError if the range is empty or wider than 2^53.
    """
    if not 0 < high - low <= 1 << 53:
        raise ValueError(
            f"[random] expected low < high <= low + 2^53, got {low}, {high}. Swap them?"
        )
    return low + np.floor(uniform(key, shape, float64) * (high - low)).astype(np.int64)


def permutation(key: npt.NDArray[np.uint32], n: int) -> npt.NDArray[np.int64]:
    """Return a permutation of 0..n-1: the stable order of n 64-bit random numbers."""
    words = bits(key, 2 * n).reshape(n, 2).astype(np.uint64)
    return np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable").astype(np.int64)


_watcher: Callable[[Generator, int, npt.NDArray[np.uint32]], None] | None = None


def watch_draws(
    watcher: Callable[[Generator, int, npt.NDArray[np.uint32]], None] | None,
) -> Callable[[Generator, int, npt.NDArray[np.uint32]], None] | None:
    """Call watcher(generator, stream, key) at every draw from now on; return the one before."""
    global _watcher
    before, _watcher = _watcher, watcher
    return before


class Generator:
    """A seed and a count of draws: hands out the key array of one draw after another."""

    def __init__(self, seed: int = 0, counter: int = 0) -> None:
        make_key(seed, 0, counter)  # checks the ranges
        self.seed = seed
        self.counter = counter

    def key(self, stream: int = 0) -> npt.NDArray[np.uint32]:
        """Return the key array of the next draw, in a stream of `stream_id`."""
        key = make_key(self.seed, stream, self.counter)
        self.counter += 1
        if _watcher is not None:
            _watcher(self, stream, key)
        return key

    def state(self) -> dict[str, int]:
        """Return what `load_state` needs to continue here."""
        return {"seed": self.seed, "counter": self.counter}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        make_key(state["seed"], 0, state["counter"])
        self.seed, self.counter = state["seed"], state["counter"]

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, counter={self.counter})"


_default = Generator()


def default_generator() -> Generator:
    """Return the one generator that draws when none is named."""
    return _default


def seed(value: int) -> None:
    """Set the seed of the default generator and start its count of draws anew.

    Raises ValueError unless 0 <= value < 2^64.
    """
    _default.load_state({"seed": value, "counter": 0})
