"""Compile the library of kernels: ``python build.py [--sanitize] [--output FILE]``.

Requires the standard library and a C compiler: ``$CC``, one on the PATH, or PyPI's ``ziglang``.
The source is compiled once for each instruction set; the library chooses among them at run time.
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
#: No -ffast-math: NaN and infinity must be detected. No -march=native: one library for all CPUs.
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
    """Failure to build the library."""


def default_output() -> Path:
    """Return the path at which the package looks for the library of this platform."""
    return HERE / f"kernels.so.{sysconfig.get_platform()}"


def compiler() -> list[str]:
    """Return the command of a C compiler; raise `BuildError` if none is found."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        command = [sys.executable, "-m", "ziglang", "cc"]
        # By default Zig targets exactly this CPU and C library.
        if sys.platform == "linux":
            command += ["-target", f"{platform.machine()}-linux-gnu.2.17", "-mcpu=baseline"]
        return command
    raise BuildError("no C compiler: set $CC, or install cc, gcc, clang or PyPI's ziglang")


def build(output: Path, *, sanitize: bool = False) -> None:
    """Compile and link the library.

    If no compiler is found, or it fails, raise `BuildError` with the compiler's errors.
    """
    if os.name == "nt":
        raise BuildError("the kernels are not built on Windows")
    output.unlink(missing_ok=True)  # a failed build must not leave a library of another version
    command = compiler()
    flags = [*FLAGS.split(), *(SANITIZED if sanitize else OPTIMISED).split()]
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source, name, extra in _units():
            objects.append(os.path.join(folder, f"{name}.o"))
            _run([*command, *flags, *extra, "-c", str(HERE / source), "-o", objects[-1]])
        library = os.path.join(folder, output.name)
        _run([*command, *flags, "-shared", *objects, "-lm", "-o", library])
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, output)


def _units() -> Iterator[tuple[str, str, list[str]]]:
    """Yield source files, the names of their objects, and flags."""
    yield "library.c", "library", []
    machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    for name, flags in INSTRUCTION_SETS.get(machine, INSTRUCTION_SETS[""]).items():
        for source in ("half_step", "scan"):
            yield f"{source}.c", f"{source}-{name}", [f"-DISA={name}", *flags.split()]


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from None
    if result.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{result.stderr.strip()}")


def main(arguments: list[str] | None = None) -> int:
    """Build the library as requested on the command line; return 1 on failure."""
    parser = argparse.ArgumentParser(description="Compile the kernels.")
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="enable address and UB sanitizers",
    )
    parser.add_argument("--output", type=Path, default=default_output(), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        build(options.output, sanitize=options.sanitize)
    except BuildError as error:
        sys.stderr.write(f"rddals: the NumPy kernels will be used: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
