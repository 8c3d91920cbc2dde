"""Half-step kernels in C (placeholder loader)."""
from __future__ import annotations
import ctypes, sysconfig
from functools import cache
from pathlib import Path

@cache
def library():
    return ctypes.CDLL(str(Path(__file__).parent / f"half_step-{sysconfig.get_platform()}.so"))

def unavailable():
    return ""
