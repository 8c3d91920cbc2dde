"""Compile the library of kernels: ``python build.py [--sanitize] [--output FILE]``.

It needs nothing but the standard library and a C compiler: ``$CC``, one on the PATH, or the one
that PyPI has (``ziglang``). The source is compiled once for each instruction set; the library
chooses among them when it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
#: No -ffast-math: NaN and infinity must be seen. No -march=native: one library serves all CPUs.
FLAGS = "-std=gnu11 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math"
OPTIMISED = "-O3 -Wall"
SANITIZED = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
INSTRUCTION_SETS = {
    "x86_64": {
        "avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512",
        "avx2": "-mavx2 -mfma",
        "baseline": "",
    },
    "": {"baseline": ""},
}


class BuildError(Exception):
    """There is no library, and why."""


def default_output() -> Path:
    """Where the package looks for the library of this platform."""
    return HERE / f"kernels.so.{sysconfig.get_platform()}"


def compiler() -> list[str]:
    """The command of a C compiler.

    Raises
    ------
    BuildError
        If there is none.
    """
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        command = [sys.executable, "-m", "ziglang", "cc"]
        # Zig compiles for this very CPU and C library unless it is told otherwise.
        if sys.platform == "linux":
            command += ["-target", f"{platform.machine()}-linux-gnu.2.17", "-mcpu=baseline"]
        return command
    raise BuildError("no C compiler: neither $CC, cc, gcc, clang nor PyPI's ziglang")


def build(output: Path, *, sanitize: bool = False) -> None:
    """Compile and link the library.

    Raises
    ------
    BuildError
        If there is no compiler, or it fails; the message has what it printed.
    """
    if os.name == "nt":
        raise BuildError("the kernels are not built on Windows")
    output.unlink(missing_ok=True)  # if this fails, none is better than one of another version
    command = compiler()
    flags = [*FLAGS.split(), *(SANITIZED if sanitize else OPTIMISED).split()]
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source, name, extra in _units():
            objects.append(os.path.join(folder, f"{name}.o"))
            _run([*command, *flags, *extra, "-c", str(HERE / source), "-o", objects[-1]])
        made = os.path.join(folder, output.name)
        _run([*command, *flags, "-shared", *objects, "-lm", "-o", made])
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, output)


def _units() -> Iterator[tuple[str, str, list[str]]]:
    """Source files, names of their objects, and flags."""
    yield "library.c", "library", []
    machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    for name, flags in INSTRUCTION_SETS.get(machine, INSTRUCTION_SETS[""]).items():
        for source in ("half_step", "scan"):
            yield f"{source}.c", f"{source}-{name}", [f"-DISA={name}", *flags.split()]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


def main(arguments: list[str] | None = None) -> int:
    """Build as the command line says; 1 if that fails."""
    parser = argparse.ArgumentParser(description="Compile the kernels.")
    parser.add_argument("--sanitize", action="store_true", help="check addresses and behaviour")
    parser.add_argument("--output", type=Path, default=default_output(), metavar="FILE")
    asked = parser.parse_args(arguments)
    try:
        build(asked.output, sanitize=asked.sanitize)
    except BuildError as error:
        sys.stderr.write(f"rddals: NumPy's kernels will run: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
