"""Shipping this package to executors whose Python does not have it."""

from __future__ import annotations

import os
import zipfile
from importlib import import_module
from pathlib import Path
from weakref import WeakSet

from pyspark import SparkContext

from rddals.local_workers import is_local

PACKAGES = ("rddals", "partitioners")

_shipped: WeakSet[SparkContext] = WeakSet()


def ship(sc: SparkContext) -> None:
    """Make this package importable in every Python worker of a context; workers need NumPy too.

    Spark's workers see their own Python installation and the files added to the context. So a zip
    of sources and compiled kernels is added, once per context; workers on the driver's platform
    load the kernels from it. Nothing is sent if the workers have the package already: those of a
    local master share the driver's Python, and a package imported from a zip came by
    ``--py-files``, which the workers get as well.
    """
    if sc in _shipped or is_local(sc) or not _sources("rddals"):
        return
    # Spark serves the file from this path, and deletes the folder when the context stops.
    path = os.path.join(sc._temp_dir, "rddals.zip")
    write_package(path)
    sc.addPyFile(path)
    _shipped.add(sc)


def write_package(path: str | os.PathLike[str]) -> None:
    """Write the zip that ``spark-submit --py-files`` takes.

    Raise `FileNotFoundError` if this package was itself imported from a zip.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in PACKAGES:
            sources = _sources(name)
            if not sources:
                raise FileNotFoundError(
                    f"{name} was not imported from a folder. Use the zip that it was imported from."
                )
            for source in sources:
                package.write(source, Path(name) / source.relative_to(_folder(name)))


def _folder(package: str) -> Path:
    file = import_module(package).__file__
    assert file is not None
    return Path(file).parent


def _sources(package: str) -> list[Path]:
    """Return the package's Python files and libraries; an empty list if it is in a zip."""
    folder = _folder(package)
    return sorted([*folder.rglob("*.py"), *folder.rglob("*.so.*")])
