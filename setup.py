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

from setuptools import setup
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
        sys.stderr.write(f"rddals: the NumPy kernels will be used: {error}\n")
        return None
    return output


class BuildWithLibrary(build_py):
    """Puts the library beside the sources it was made from."""

    def run(self):
        super().run()
        folder = (Path() if self.editable_mode else Path(self.build_lib)) / FOLDER
        if not self.editable_mode:  # an earlier build's would go into a wheel of no platform
            for old in folder.glob("*.so.*"):
                old.unlink()
        if library() is not None:
            shutil.copy(library(), folder / library().name)


class WheelOfPlatform(bdist_wheel):
    """One wheel for a platform, whatever its Python: the library is plain C."""

    def run(self):
        # Not earlier: pip asks for metadata in processes of their own, which would compile as well.
        built = library() is not None
        self.root_is_pure = not built
        self.distribution.has_ext_modules = lambda: built
        super().run()

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfPlatform})
