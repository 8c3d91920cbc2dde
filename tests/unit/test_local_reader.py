"""Ratings read without Spark, and files that are left to Spark.

That Spark reads the same ratings is tested in tests/integration/test_cli_readers.py.
"""

from __future__ import annotations

import gzip
import os
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rating_files import PLAIN, RATING_FILES, ROWS, TEXT, write
from rddals.sources import local_reader
from rddals.sources.local_reader import read_local_ratings


def rows(source):
    block = source.block
    assert (block.users.dtype, block.ratings.dtype) == (np.int32, np.float32)
    return list(
        zip(block.users.tolist(), block.products.tolist(), block.ratings.tolist(), strict=True)
    )


@pytest.mark.parametrize(("name", "content", "description"), RATING_FILES)
def test_text_files(tmp_path, name, content, description):
    source = read_local_ratings([write(tmp_path / name, content)])
    assert rows(source) == ROWS
    assert source.description.startswith(description)


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint32()])
def test_parquet_files(tmp_path, kind):
    ids = [[1, 2**31 - 1], [2, 5]]
    columns = {"rating": pa.array([1, 2]), "t": ["a", "b"]}
    columns |= {name: pa.array(of, kind) for name, of in zip(("user", "item"), ids, strict=True)}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = read_local_ratings([str(tmp_path / "x.parquet")])
    assert rows(source) == [(1, 2, 1.0), (2**31 - 1, 5, 2.0)]
    assert source.description == "Parquet, columns user, item, rating"


def test_several_files_and_hidden_ones(tmp_path):
    for name in ("a.csv", "b.csv"):
        write(tmp_path / "d" / name, TEXT)
    for name in ("_SUCCESS", ".a.csv.crc"):
        write(tmp_path / "d" / name, "junk")
    assert rows(read_local_ratings([str(tmp_path / "d")])) == ROWS * 2


def test_movielens_as_published(tmp_path):
    write(tmp_path / "ml/u.data", PLAIN.replace(",", "\t").replace("\n", "\t0\n"))
    write(tmp_path / "ml/u.item", "1|Toy Story (1995)")
    source = read_local_ratings([f"{tmp_path}/ml/"])
    assert rows(source) == ROWS
    assert source.paths == (f"{tmp_path}/ml/u.data",)


@pytest.mark.parametrize(
    "line",
    [
        "3,4",
        "3,4,5,6",
        "3,four,5",
        "3,4.0,5",
        "3,4,good",
        "3,4,",
        ",4,5",
        "3,4,NaN",
        "3,4,-1e99",
        "3000000000,4,1",
        '3,4,"1',
        "3,4,\x001",
        "0x10,4,1",
        '"3",4,1',
        "user,item,rating",
        "  ",
        "3,4,NA",
    ],
)
def test_doubtful_lines_are_left_to_spark(tmp_path, line):
    assert read_local_ratings([write(tmp_path / "x.csv", TEXT + line + "\n" + PLAIN)]) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", ""),
        ("x.csv._COPYING_", PLAIN),
        ("_x.csv", TEXT),
        ("a:b.csv", TEXT),
        ("x.csv.lz4", TEXT),
        ("quoted.csv", 'user,item,rating,title\n1,2,3,"a\n4,5,3,b"\n'),
        ("open.csv", 'user,item,rating,title\n1,2,3,"a\n4,5,3,b\n'),
        ("colons.dat", "1::2::3::4\n1:NA:2::3::4\n"),
        ("d/a.csv._COPYING_", TEXT),
        ("blank.csv", "\n \n"),
        ("header.csv", "user,item,rating\n"),
        ("latin.csv", "user,item,rating,caf\xe9\n".encode("latin-1")),
        ("colons.dat", "1:2::3::4\n"),
        ("x.parquet", PLAIN),
        ("x.csv.bz2", PLAIN),
        ("cut.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-9]),
        ("no.csv.gz", TEXT),
        ("no.csv", b"PAR1 no"),
        ("a{b}.csv", TEXT),
        ("d/k=1/x.csv", TEXT),
        ("d/_spark_metadata/0", "v1"),
        ("d/_k=1.csv", TEXT),
    ],
)
def test_files_left_to_spark(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert read_local_ratings([path if "/" not in name else f"{tmp_path}/d"]) is None


@pytest.mark.parametrize(
    "columns",
    [
        {"user": [1, None], "item": [1, 2], "rating": [1.0, 2.0]},
        {"user": [1.0, 2.0], "item": [1, 2], "rating": [1.0, 2.0]},
        {"user": [1, 2], "item": [1, 2**31], "rating": [1.0, 2.0]},
        {"user": [1, 2], "item": [1, 2], "rating": [1.0, float("inf")]},
        {"user": [1, 2], "item": [1, 2], "rating": ["1", "2"]},
        {"user": [1, 2], "item": [1, 2], "rating": [1.0, 2.0], "USER": [1, 2]},
        {"user": [1, 2], "thing": [1, 2], "rating": [1.0, 2.0]},
        {"user": [1, 2], "item": [1, 2], "rating": np.array([1.0, 2.0], np.float16)},
    ],
)
def test_parquet_left_to_spark(tmp_path, columns):
    parquet.write_table(pa.table(columns), tmp_path / "x")
    assert read_local_ratings([str(tmp_path / "x")]) is None


@pytest.mark.parametrize("other", [{"user": pa.array([1], pa.int64())}, {"User": [1]}])
def test_differing_parquet_files_are_left_to_spark(tmp_path, other):
    first = {"user": pa.array([1], pa.int32())}
    for name, users in (("a", first), ("b", other)):
        parquet.write_table(pa.table({**users, "item": [1], "rating": [1.0]}), tmp_path / name)
    paths = [str(tmp_path / name) for name in "ab"]
    assert read_local_ratings(paths) is None
    assert read_local_ratings(paths[:1] * 2) is not None


def test_named_pipes_are_left_to_spark(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert read_local_ratings([str(tmp_path / "pipe.csv")]) is None


def test_differing_text_files_are_left_to_spark(tmp_path):
    write(tmp_path / "d/a.csv", "1;2;3;a\n")
    write(tmp_path / "d/b.csv", "1;2;3;a,b,c\n")
    assert read_local_ratings([f"{tmp_path}/d"]) is None
    write(tmp_path / "e/a.csv", TEXT)
    write(tmp_path / "e/b.csv", "item,user,rating\n1,2,3\n")
    assert read_local_ratings([f"{tmp_path}/e"]) is None


@pytest.mark.parametrize(
    "path", ["", "-", "/no/such", "s3a://bucket/x.csv", "*.csv", "/dev/stdin", "//x.csv"]
)
def test_paths_left_to_spark(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "-", TEXT)
    assert read_local_ratings([path]) is None


def test_large_files_are_left_to_spark(tmp_path, monkeypatch):
    monkeypatch.setattr(local_reader, "cores", lambda: 2)
    plain = write(tmp_path / "x.csv", TEXT)
    zipped = write(tmp_path / "x.csv.gz", gzip.compress(TEXT.encode(), mtime=0))
    columns = {"user": [1, 2], "item": [1, 2], "rating": [1.0, 2.0]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    monkeypatch.setattr(
        local_reader, "BYTES_PER_CORE", (local_reader.BYTES_PER_FILE + len(TEXT)) / 2
    )
    assert read_local_ratings([plain]) is not None
    assert read_local_ratings([plain, plain]) is None  # Spark would make more blocks
    monkeypatch.undo()
    for path in (plain, zipped, str(tmp_path / "x.parquet")):
        with monkeypatch.context() as patch:
            assert read_local_ratings([path]) is not None
            patch.setattr(local_reader, "MAX_BYTES", len(TEXT) - 1)
            assert read_local_ratings([path]) is None


def test_without_pyarrow_everything_is_left_to_spark(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read_local_ratings([write(tmp_path / "x.csv", TEXT)]) is None
