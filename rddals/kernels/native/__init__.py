"""Kernels in C: the library, where there is one for this platform.

It is plain C behind ctypes, so it does not depend on the version of Python, and ctypes lets go of
the interpreter's lock while it runs. Its file is named by the platform: workers of another platform
do not find theirs, and use NumPy.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
import tempfile
from functools import cache
from importlib.resources import files
from typing import Any

from numpy.typing import NDArray

__all__ = [
    "address",
    "call",
    "described",
    "instruction_set",
    "library",
    "library_name",
    "unavailable",
]

#: What `rddals_abi` must return: the version of ``job.h`` and of the functions' arguments.
ABI = 2
#: Wider vectors are not used; tests lower it to reach every instruction set.
VECTOR_BYTES = 64


def library_name() -> str:
    """The name of the library's file on this platform; Python takes no such file for a module."""
    return f"kernels.so.{sysconfig.get_platform()}"


def library() -> ctypes.CDLL | None:
    """The library, loaded; None if there is none that can be."""
    return _loaded()[0]


def unavailable() -> str:
    """Why there is no library; empty if there is one."""
    return _loaded()[1]


def instruction_set() -> str | None:
    """The instruction set that the library uses on this CPU, such as "avx512"."""
    loaded = library()
    if loaded is None:
        return None
    loaded.rddals_instruction_set.restype = ctypes.c_char_p
    return str(loaded.rddals_instruction_set().decode())


def described() -> str:
    """The kernels that run here unless others are asked for, and why NumPy's if these do."""
    instructions = instruction_set()
    return f"numpy ({unavailable()})" if instructions is None else f"native, {instructions}"


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library, which there is, with arguments of ctypes' types.

    Raises
    ------
    MemoryError
        The only error that the functions have.
    """
    if getattr(library(), name)(*arguments):
        raise MemoryError(f"no memory for the buffers of {name}")


def address(array: NDArray[Any] | None) -> int | None:
    """Where an array's numbers are, which must outlive their use; null for none."""
    return None if array is None else array.ctypes.data


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    name = library_name()
    path = os.environ.get("RDDALS_NATIVE_LIBRARY")
    try:
        loaded = ctypes.CDLL(path) if path else _load_resource(name)
    except FileNotFoundError:
        return None, f"no {name} was built"
    except OSError as error:
        return None, f"{path or name} cannot be loaded: {error}"
    if not hasattr(loaded, "rddals_abi") or loaded.rddals_abi() != ABI:
        return None, f"{path or name} belongs to another version of rddals"
    return loaded, ""


def _load_resource(name: str) -> ctypes.CDLL:
    resource = files(__name__).joinpath(name)
    if isinstance(resource, os.PathLike):
        if not os.path.exists(resource):
            raise FileNotFoundError(name)
        return ctypes.CDLL(os.fspath(resource))
    # Out of a zip it needs a file of its own, for as long as it takes to load.
    content = resource.read_bytes()
    with tempfile.TemporaryDirectory(prefix="rddals-") as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return ctypes.CDLL(path)
