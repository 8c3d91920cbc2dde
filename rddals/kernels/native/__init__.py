"""Kernels in C: loading and calling of the compiled library.

The library is plain C behind ctypes, so it does not depend on the version of Python, and ctypes
releases the GIL while it runs. Its file name contains the platform. Workers on another platform
find no library and use NumPy.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from numpy.typing import NDArray

__all__ = [
    "address",
    "call",
    "describe",
    "instruction_set",
    "library",
    "library_name",
    "unavailable",
]

#: Required result of `rddals_abi`: the version of ``job.h`` and of the function signatures.
ABI = 2
#: Maximum vector width; tests lower it to cover every instruction set.
VECTOR_BYTES = 64


def library_name() -> str:
    """Return the file name of the library on this platform; Python does not import such a file."""
    return f"kernels.so.{sysconfig.get_platform()}"


def library() -> ctypes.CDLL | None:
    """Return the loaded library, or None if it cannot be loaded."""
    return _loaded()[0]


def unavailable() -> str:
    """Return why the library is unavailable; empty if it is loaded."""
    return _loaded()[1]


def instruction_set() -> str | None:
    """Return the instruction set that the library uses on this CPU, such as "avx512"."""
    loaded = library()
    if loaded is None:
        return None
    loaded.rddals_instruction_set.restype = ctypes.c_char_p
    return str(loaded.rddals_instruction_set().decode())


def describe() -> str:
    """Describe the default kernels of this process, with the reason if they are NumPy's."""
    instructions = instruction_set()
    return f"numpy ({unavailable()})" if instructions is None else f"native, {instructions}"


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library with ctypes arguments. The library must be available.

    If the function cannot allocate its buffers, raise `MemoryError`.
    """
    if getattr(library(), name)(*arguments):
        raise MemoryError(f"Cannot allocate the buffers of {name}.")


def address(array: NDArray[Any] | None) -> int | None:
    """Return the address of an array's data, or None. The caller must keep the array alive."""
    return None if array is None else array.ctypes.data


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    """Load the library; return it, or None and the reason."""
    name = library_name()
    path = os.environ.get("RDDALS_NATIVE_LIBRARY")
    try:
        if path:
            loaded = ctypes.CDLL(path)
        else:
            resource = files(__name__).joinpath(name)
            if not resource.is_file():
                return None, f"no {name} was built"
            with as_file(resource) as file:  # extracted if the package is in a zip file
                loaded = ctypes.CDLL(str(file))
    except OSError as error:
        return None, f"{path or name} cannot be loaded: {error}"
    if not hasattr(loaded, "rddals_abi") or loaded.rddals_abi() != ABI:
        return None, f"{path or name} belongs to another version of rddals"
    return loaded, ""
