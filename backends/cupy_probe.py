"""Whether CuPy can run here, asked without ever throwing: the reason is the answer."""

from __future__ import annotations

import importlib.metadata

MINIMUM = (14, 2)


def installed_distributions() -> dict[str, str]:
    """Return the installed CuPy wheels, name to version; more than one is a fault."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")):
            found[name] = distribution.version
    return found


def probe() -> tuple[bool, str, str]:
    """Return (usable, reason, remedy). Catches everything: drivers fail in many ways."""
    install = 'pip install "trine[cuda13]" (or "trine[cuda12]" for a CUDA 12 driver)'
    try:
        wheels = installed_distributions()
        if len(wheels) > 1:
            names = " ".join(sorted(wheels))
            return (
                False,
                f"several CuPy packages are installed ({names})",
                (f"pip uninstall -y {names}, then {install}"),
            )
        import cupy  # noqa: PLC0415  the probe is one of the two places that import it

        version = tuple(int(part) for part in cupy.__version__.split(".")[:2])
        if version < MINIMUM:
            return False, f"CuPy {cupy.__version__} is older than 14.2", install
        if not cupy.cuda.is_available():
            return (
                False,
                "no usable NVIDIA GPU or driver was found",
                ("run on a machine with an NVIDIA GPU whose driver `nvidia-smi` shows"),
            )
        count = cupy.cuda.runtime.getDeviceCount()
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except ImportError as error:
        return False, f"CuPy does not import: {error}", install
    except Exception as error:
        return (
            False,
            f"CuPy fails: {type(error).__name__}: {error}",
            ("check the driver with `nvidia-smi`, then see `trine doctor`"),
        )
    return True, f"{name} ({count} GPU{'s' if count > 1 else ''}, CuPy {cupy.__version__})", ""
