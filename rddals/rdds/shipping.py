"""Bringing this package to executors whose Python does not have it."""

from __future__ import annotations

import os
import zipfile
from importlib import import_module
from pathlib import Path
from weakref import WeakSet

from pyspark import SparkContext

from rddals.rdds.context import is_local

__all__ = ["PACKAGES", "ship", "write_package"]

PACKAGES = ("rddals", "partitioners")

_shipped: WeakSet[SparkContext] = WeakSet()


def ship(sc: SparkContext) -> None:
    """Have every Python worker of a context find this package, with NumPy all it needs.

    Sent once per context, as a zip of sources that Spark distributes and puts on the workers'
    path, with the compiled kernels: workers on the driver's platform load them out of it. A local
    master's workers share the driver's Python, and a package that was itself imported from a zip
    came by ``--py-files``, which the workers get as well: nothing is sent.
    """
    if sc in _shipped or is_local(sc) or not _sources("rddals"):
        return
    # Spark serves the file from where it is, and deletes this folder when the context stops.
    path = os.path.join(sc._temp_dir, "rddals.zip")
    write_package(path)
    sc.addPyFile(path)
    _shipped.add(sc)


def write_package(path: str | os.PathLike[str]) -> None:
    """Write the zip that ``spark-submit --py-files`` takes.

    Raises
    ------
    FileNotFoundError
        If this package was itself imported from a zip.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in PACKAGES:
            sources = _sources(name)
            if not sources:
                raise FileNotFoundError(
                    f"{name} was not imported from a folder; use the zip it came in."
                )
            for source in sources:
                package.write(source, Path(name) / source.relative_to(_folder(name)))


def _folder(package: str) -> Path:
    file = import_module(package).__file__
    assert file is not None
    return Path(file).parent


def _sources(package: str) -> list[Path]:
    """The package's Python files and libraries; none if it is no folder."""
    folder = _folder(package)
    return sorted([*folder.rglob("*.py"), *folder.rglob("*.so.*")])
