"""Adds the compiled kernels to what pyproject.toml describes, where there is a compiler.

``RDDALS_NATIVE=skip`` leaves them out, ``RDDALS_NATIVE=require`` fails without them.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

FOLDER = Path("rddals/kernels/native")


@cache
def library():
    """The compiled library, in a folder of its own; None if there is none."""
    wanted = os.environ.get("RDDALS_NATIVE", "")
    if wanted == "skip":
        return None
    spec = importlib.util.spec_from_file_location("build_native", FOLDER / "build.py")
    build_native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_native)
    output = Path(tempfile.mkdtemp()) / build_native.default_output().name
    try:
        build_native.build(output)
    except build_native.BuildError as error:
        if wanted == "require":
            raise SystemExit(f"rddals: RDDALS_NATIVE=require, but {error}") from None
        sys.stderr.write(f"rddals: NumPy's kernels will run: {error}\n")
        return None
    return output


class BuildWithLibrary(build_py):
    """Puts the library beside the sources it was made from."""

    def run(self):
        super().run()
        if library() is not None:
            root = Path() if self.editable_mode else Path(self.build_lib)
            shutil.copy(library(), root / FOLDER / library().name)


class WheelOfPlatform(bdist_wheel):
    """One wheel for a platform, whatever its Python: the library is plain C."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


class WithLibrary(Distribution):
    """A distribution that belongs to a platform if there is a library in it."""

    def has_ext_modules(self):
        return library() is not None


setup(
    distclass=WithLibrary, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfPlatform}
)
