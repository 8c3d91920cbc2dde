"""The compiled library: loaded, built, rejected or missing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kernel_variants import NO_LIBRARY
from rddals.kernels import native
from rddals.kernels.native import build

DESCRIBE = "from rddals.kernels import native; print(native.describe())"
COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
)


def kernels_found(path, **environment):
    """Return the kernels that another process finds on this path."""
    inherited = {k: v for k, v in os.environ.items() if k != "RDDALS_NATIVE_LIBRARY"}
    process = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        env={**inherited, "PYTHONPATH": str(path), **environment},
        cwd=os.sep,  # not the current folder, which is searched first
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.strip()


@pytest.fixture
def package(tmp_path):
    """A copy of the package's sources, without a library."""
    root = Path(native.__file__).parents[3]
    for name in ("rddals", "partitioners"):
        shutil.copytree(
            root / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so.*", "__pycache__")
        )
    return tmp_path


def zipped(package, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in package.rglob("*"):
            if file.is_file() and file != path:
                archive.write(file, file.relative_to(package))
    return path


def test_missing_library_falls_back_to_numpy(package, tmp_path):
    expected = f"numpy (no {native.library_name()} was built)"
    assert kernels_found(package) == expected
    assert kernels_found(zipped(package, tmp_path / "package.zip")) == expected


def test_named_library_must_exist(package):
    assert "numpy (/nowhere cannot be loaded" in kernels_found(
        package, RDDALS_NATIVE_LIBRARY="/nowhere"
    )


def test_broken_library_is_not_used(package):
    (package / "rddals/kernels/native" / native.library_name()).write_bytes(b"no library")
    assert "cannot be loaded" in kernels_found(package)


@COMPILER
def test_library_of_another_version_is_not_used(package, tmp_path):
    source = tmp_path / "other.c"
    source.write_text("int rddals_abi(void) { return 0; }")
    library = package / "rddals/kernels/native" / native.library_name()
    command = [*build.compiler(), "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    assert "belongs to another version" in kernels_found(package)


@NO_LIBRARY
def test_library_loads_from_a_folder_and_a_zip(package, tmp_path):
    folder = Path(native.__file__).parent
    shutil.copy(folder / native.library_name(), package / "rddals/kernels/native")
    expected = f"native, {native.instruction_set()}"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert kernels_found(package) == expected
    path = zipped(package, tmp_path / "package.zip")
    assert kernels_found(path, TMPDIR=str(scratch)) == expected
    assert not list(scratch.iterdir())


@COMPILER
@pytest.mark.long
def test_library_compiles_into_any_folder(tmp_path):
    library = tmp_path / "new" / "library.so"
    assert build.main(["--output", str(library)]) == 0
    assert kernels_found(
        Path(native.__file__).parents[3], RDDALS_NATIVE_LIBRARY=str(library)
    ).startswith("native")


def test_missing_compiler_builds_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert build.main(["--output", str(tmp_path / "library.so")]) == 1
    assert not list(tmp_path.iterdir())
    error = capsys.readouterr().err
    assert error.startswith("rddals: the NumPy kernels will be used: no C compiler")
    assert error.count("\n") == 1


@pytest.mark.parametrize("cc", ["/nowhere/cc", f"{sys.executable} -c 1/0"])
def test_failing_compiler_is_named(monkeypatch, capsys, tmp_path, cc):
    monkeypatch.setenv("CC", cc)
    assert build.main(["--output", str(tmp_path / "library.so")]) == 1
    assert cc.split()[0] in capsys.readouterr().err
