"""Reading ratings from files with Spark: every format and every error."""

from __future__ import annotations

import csv
import gzip
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import rating_files
from rating_files import RATING_FILES
from rddals.errors import RatingError, SourceError
from rddals.rdds.degrees import count_degrees
from rddals.rdds.ingest import rating_source
from rddals.sources import readers
from rddals.sources.local_reader import read_local_ratings

RATINGS = [(u, i, float((u * i) % 5) + 0.5) for u in range(1, 9) for i in (-3, 2, 5, 11)]
HEADER = "userId,movieId,rating,timestamp\n"


def lines(separator, extra="880606923"):
    return "".join(separator.join([str(u), str(i), str(r), extra]) + "\n" for u, i, r in RATINGS)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def read_ratings(spark, paths, columns=None):
    """Read ratings with Spark, and assert that reading without Spark agrees."""
    local = read_local_ratings(paths, columns)
    try:
        ratings = readers.read_ratings(spark, paths, columns)
    except SourceError:
        assert local is None
        raise
    if local is not None:
        block = local.block
        rows = zip(
            block.users.tolist(), block.products.tolist(), block.ratings.tolist(), strict=True
        )
        assert ratings.faulty.isEmpty()
        assert sorted(map(tuple, ratings.frame.collect())) == sorted(rows)
        assert (ratings.paths, ratings.description) == (local.paths, local.description)
    return ratings


@pytest.mark.parametrize(("name", "content", "description"), RATING_FILES)
def test_text_read_without_spark(spark, tmp_path, name, content, description):
    path = rating_files.write(tmp_path / name, content)
    assert read_local_ratings([path]) is not None
    assert read_ratings(spark, [path]).description.startswith(description)


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint32(), pa.uint64()])
def test_parquet_read_without_spark(spark, tmp_path, kind):
    columns = {name: pa.array([1, 2**31 - 1], kind) for name in ("user", "item")}
    columns |= {"rating": [1, 2], "t": np.array([1, 2], "M8[us]"), "s": ["a", "b"]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert read_local_ratings([str(tmp_path / "x.parquet")]) is not None
    read_ratings(spark, [str(tmp_path / "x.parquet")])
    spark.read.parquet(str(tmp_path / "x.parquet")).write.parquet(str(tmp_path / "again"))
    assert (read_local_ratings([str(tmp_path / "again")]) is None) == (
        kind == pa.uint64()
    )  # decimals
    read_ratings(spark, [str(tmp_path / "again")])


def test_folders_read_alike_with_and_without_spark(spark, tmp_path):
    """A file and its folder, which also has hidden files."""
    for name in ("d/a.csv", "d/b.csv"):
        rating_files.write(tmp_path / name, rating_files.TEXT)
    for name in ("d/_SUCCESS", "d/.hidden"):
        rating_files.write(tmp_path / name, "junk")
    paths = [f"{tmp_path}/d/b.csv", f"{tmp_path}/d"]
    assert len(read_local_ratings(paths).block) == 6
    read_ratings(spark, paths)


def read(spark, *paths, columns=None):
    """Return the sorted ratings and the description."""
    ratings = read_ratings(spark, paths, columns)
    return sorted(map(tuple, ratings.frame.collect())), ratings.description


def train_on(ratings):
    """Read ratings as training does, with its error handling."""
    with ratings.locating_faults():
        count_degrees(rating_source(ratings.frame))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.data", lines("\t")),
        ("u.data.gz", lines("\t")),
        ("ratings.dat", lines("::")),
        ("ratings.dat.gz", lines("::")),
        ("ratings.csv", HEADER + lines(",")),
        ("ratings.csv.gz", HEADER + lines(",")),
        ("with space & [brackets].csv", HEADER + lines(",")),
        ("mark.csv", "\ufeff" + HEADER + lines(",")),
        ("windows.csv", (HEADER + lines(",")).replace("\n", "\r\n")),
        ("blank.csv", "\n" + HEADER + "\n" + lines(",") + "\n  \n"),
        (
            "semicolons.csv",
            "rating;title;item;user\n"
            + "".join(f'{r};"a ""b""; c";{i};{u}\n' for u, i, r in RATINGS),
        ),
    ],
)
def test_text_files(spark, tmp_path, name, text):
    path = write(tmp_path / name, text)
    if "[" in name:  # Spark takes brackets for a glob
        path = path.replace("[", "\\[").replace("]", "\\]")
    assert read(spark, path)[0] == sorted(RATINGS)


@pytest.mark.parametrize("kind", ["bigint", "double"])
def test_parquet_files(spark, tmp_path, kind):
    schema = f"rating double, t string, userId {kind}, itemId {kind}"
    ids = float if kind == "double" else int
    rows = [(r, "x", ids(u), ids(i)) for u, i, r in RATINGS]
    spark.createDataFrame(rows, schema).write.parquet(str(tmp_path / "saved"))
    result, description = read(spark, str(tmp_path / "saved"))
    assert result == sorted(RATINGS)
    assert description == "Parquet, columns userId, itemId, rating"
    one = next((tmp_path / "saved").glob("*.parquet"))
    assert set(read(spark, str(one))[0]) <= set(RATINGS)


def test_several_files_each_with_a_header(spark, tmp_path):
    half = len(RATINGS) // 2
    parts = lines(",").splitlines(keepends=True)
    for name, part in (("a.csv", parts[:half]), ("b.csv.gz", parts[half:])):
        write(tmp_path / "many" / name, HEADER + "".join(part))
    folder = tmp_path / "many"
    for paths in ([folder], [folder / "*.csv*"], [folder / "a.csv", folder / "b.csv.gz"]):
        assert read(spark, *map(str, paths))[0] == sorted(RATINGS)


def test_ratings_are_found_among_movielens_files(spark, tmp_path):
    write(tmp_path / "ml/ratings.csv", HEADER + lines(","))
    write(tmp_path / "ml/movies.csv", "movieId,title,genres\n1,Toy Story (1995),Comedy\n")
    assert read(spark, str(tmp_path / "ml"))[0] == sorted(RATINGS)


def test_requested_columns(spark, tmp_path):
    text = "rating,user,buyer,sku\n" + "".join(f"9,9,{u},{i}\n" for u, i, _ in RATINGS)
    path = write(tmp_path / "x.csv", text)
    assert read(spark, path, columns=("buyer", "sku", "rating"))[0] == sorted(
        (u, i, 9.0) for u, i, _ in RATINGS
    )


GOOD = lines(",")
BAD = [
    "3,4",
    "3,4,5,6,7",
    "3,four,5,1",
    "3,4.5,5,1",
    "3,4.0000000001,5,1",
    "3,4d,5,1",
    "1e99,4,5,1",
    "3,4,good,1",
    "3,4,,1",
    ",4,5,1",
    "3,4,NaN,1",
    "3,4,-1e99,1",
    "3000000000,4,1,1",
    HEADER.strip().upper(),
]


def test_every_invalid_line_is_reported(spark, tmp_path):
    path = write(tmp_path / "x.csv", HEADER + GOOD + GOOD.join(f"{line}\n" for line in BAD))
    ratings = read_ratings(spark, [path])
    assert [row["line"] for row in ratings.faulty.collect()] == BAD
    assert ratings.frame.count() == len(RATINGS) * len(BAD) + len(BAD)


def test_invalid_line_is_named(spark, tmp_path):
    path = write(tmp_path / "a b" / "x.csv.gz", HEADER + GOOD + "3,four,5,1\n" + GOOD)
    with pytest.raises(SourceError) as error:
        train_on(read_ratings(spark, [path]))
    assert str(error.value) == (
        f"{path}, line {len(RATINGS) + 2}: item 'four' is not an integer; "
        "convert other keys with rddals.indexer; the line is '3,four,5,1'"
    )


def test_whole_numbers_with_decimals_are_ids(spark, tmp_path):
    text = "".join(f"{user}.0,{item}.00,{rating},1\n" for user, item, rating in RATINGS)
    ratings = read_ratings(spark, [write(tmp_path / "x.csv", HEADER + text + "1e1,7.0,2,1\n")])
    assert ratings.faulty.isEmpty()
    assert sorted(map(tuple, ratings.frame.collect())) == sorted([*RATINGS, (10, 7, 2.0)])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("movieId,userId,rating,timestamp\n", "header 'movieId,userId,rating,timestamp' and"),
        ("", "b.csv is comma separated, no header, 4 fields and"),
        ("userId;movieId;rating;timestamp\n", "b.csv is semicolon separated"),
    ],
)
def test_files_with_other_headers_raise(spark, tmp_path, second, words):
    write(tmp_path / "d e/a.csv", HEADER + GOOD)
    write(tmp_path / "d e/b.csv", second + (GOOD.replace(",", ";") if ";" in second else GOOD))
    with pytest.raises(SourceError) as caught:
        read_ratings(spark, [str(tmp_path / "d e")])
    assert words in str(caught.value)
    assert "a.csv is comma separated, columns userId, movieId, rating, header " in str(caught.value)
    assert str(caught.value).endswith("give all files the same header and columns")


@pytest.mark.parametrize("separator", ["\t\t", ";;", "|||"])
@pytest.mark.parametrize("header", [True, False])
def test_repeated_separators(spark, tmp_path, separator, header):
    text = separator.join(["user", "item", "rating", "t"]) + "\n" if header else ""
    ratings = read_ratings(spark, [write(tmp_path / "x.dat", text + lines(separator))])
    assert f"({len(separator)} together)" in ratings.description
    assert ratings.faulty.isEmpty()
    assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS)


@pytest.mark.parametrize("name", ["u.data", "ratings.dat"])
@pytest.mark.parametrize("separator", [",", "|", ";", "::", "\t"])
def test_content_comes_before_the_name(spark, tmp_path, name, separator):
    ratings = read_ratings(spark, [write(tmp_path / name, lines(separator))])
    assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS)


def test_quotes_in_quoted_fields(spark, tmp_path):
    titles = ["plain", 'with "quotes", and a comma', "a \\ backslash", 'both \\ and "']
    rows = [(u, titles[u % 4], i, r) for u, i, r in RATINGS]
    frame = spark.createDataFrame(rows, "user int, title string, item int, rating float")
    frame.coalesce(1).write.csv(str(tmp_path / "by Spark"), header=True, quoteAll=True)
    with (tmp_path / "by Python.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "title", "item", "rating"), *rows])
    for name in ("by Spark", "by Python.csv"):
        ratings = read_ratings(spark, [str(tmp_path / name)])
        assert ratings.faulty.isEmpty(), ratings.faulty.collect()
        assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS)


def test_backslash_before_a_closing_quote(spark, tmp_path):
    header = "a,userId,movieId,rating,c\n"
    text = header + '"x\\",1,2,3,"4,5,6,7,8"\n' + r'"a \"b\", c",4,5,1,"d"' + "\n"
    ratings = read_ratings(spark, [write(tmp_path / "x.csv", text)])
    assert sorted(map(tuple, ratings.frame.collect())) == [(1, 2, 3.0), (4, 5, 1.0)]


@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("u.data", ["user_id", "item_id", "rating", "timestamp"], "\t"),
        ("ratings.dat", ["MovieID", "UserID", "Rating", "Timestamp"], "::"),
        ("x.csv", ["userId", "movieId", "rating", "2023"], ","),
    ],
)
def test_headers_that_look_like_ratings(spark, tmp_path, name, header, separator):
    text = separator.join(header) + "\n" + separator.join("1234") + "\n"
    ratings = read_ratings(spark, [write(tmp_path / name, text)])
    expected = (2, 1, 3.0) if header[0] == "MovieID" else (1, 2, 3.0)
    assert list(map(tuple, ratings.frame.collect())) == [expected]


def test_hidden_file_is_named(spark, tmp_path):
    with pytest.raises(SourceError, match="Spark ignores names that begin with _ or"):
        read_ratings(spark, [write(tmp_path / "_x.csv", HEADER + GOOD)])


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_byte_order_mark_is_no_text(spark, tmp_path, name):
    path = write(tmp_path / name, b"\xef\xbb\xbf" + (HEADER + GOOD).encode())
    for ratings in (read_ratings(spark, [path]), readers.read_batch(spark, [path])):
        assert ratings.faulty.isEmpty()
        assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS)
    blank = write(tmp_path / "blank.csv", b"\xef\xbb\xbf \n")
    assert readers.read_batch(spark, [blank]) is None


@pytest.mark.parametrize(
    ("name", "magic"), [("x.csv.lz4", b"\x04\x22\x4d\x18"), ("x.snappy", b"\xff\x06\0\0sNaPpY")]
)
def test_frames_of_other_tools_are_refused(spark, tmp_path, name, magic):
    path = write(tmp_path / name, magic + b"`@\x82" * 50)
    with pytest.raises(SourceError, match=f"^{path} is compressed in a format that Spark cannot"):
        read_ratings(spark, [path])


def test_hadoops_own_compression_is_read(spark, tmp_path):
    frame = spark.createDataFrame(RATINGS, "user int, item int, rating float").coalesce(1)
    for codec in ("lz4", "snappy", "deflate", "bzip2"):
        frame.write.csv(str(tmp_path / codec), header=True, compression=codec)
        ratings = read_ratings(spark, [str(tmp_path / codec)])
        assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS), codec


def test_columns_of_parquet_that_spark_cannot_read_are_ignored(spark, tmp_path):
    columns = list(zip(*RATINGS, strict=True))
    table = pa.table(
        {
            "when": pa.array([0] * len(RATINGS), pa.timestamp("ns")),
            "userId": pa.array(columns[0], pa.int32()),
            "movieId": pa.array(columns[1], pa.int32()),
            "rating": pa.array(columns[2], pa.float32()),
            "tags": pa.array([["a"]] * len(RATINGS)),
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    ratings = read_ratings(spark, [str(tmp_path / "x.parquet")])
    assert sorted(map(tuple, ratings.frame.collect())) == sorted(RATINGS)
    assert spark.conf.get("spark.sql.legacy.parquet.nanosAsLong") == "false"


def test_fractional_id_in_parquet_is_named(spark, tmp_path):
    frame = spark.createDataFrame([(1.0, 2, 3.0), (1.5, 2, 3.0)], "user double, item int, r double")
    frame.withColumnRenamed("r", "rating").write.parquet(str(tmp_path / "x"))
    with pytest.raises(SourceError, match=r"part-.*parquet: user '1.5' is not an integer"):
        train_on(read_ratings(spark, [str(tmp_path / "x")]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, None, 3.0), r"no item.*the row is \(1, None, 3.0\)"),
        ((1, 2**33, 3.0), "item 8589934592 does not fit 32 bits"),
        ((1, 2, float("nan")), "rating 'nan' is not a finite"),
    ],
)
def test_invalid_parquet_row_is_named(spark, tmp_path, row, message):
    frame = spark.createDataFrame([(1, 2, 3.0), row], "user long, item long, rating double")
    frame.write.parquet(str(tmp_path / "x"))
    ratings = read_ratings(spark, [str(tmp_path / "x")])
    with (
        pytest.raises(SourceError, match=f"^{tmp_path}/x/part-.*parquet: {message}"),
        ratings.locating_faults(),
    ):
        raise RatingError("refused")


def test_errors_of_other_ratings_pass_unchanged(spark, tmp_path):
    ratings = read_ratings(spark, [write(tmp_path / "x.csv", HEADER + GOOD)])
    with pytest.raises(RatingError, match="elsewhere"), ratings.locating_faults():
        raise RatingError("elsewhere")


def test_header_without_ratings_raises(spark, tmp_path):
    ratings = read_ratings(spark, [write(tmp_path / "x.csv", HEADER)])
    with pytest.raises(SourceError, match=r"x\.csv contains no ratings"), ratings.locating_faults():
        raise RatingError("empty")


def test_truncated_file_raises(spark, tmp_path):
    packed = gzip.compress("".join(f"{i},{i * 7919 % 9973},1\n" for i in range(60_000)).encode())
    path = write(tmp_path / "cut", packed[: len(packed) * 2 // 3])
    os.rename(path, f"{path}.csv.gz")
    ratings = read_ratings(spark, [f"{path}.csv.gz"])
    with pytest.raises(SourceError, match="cannot be read to its end: Unexpected end"):
        train_on(ratings)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b"\n \n", "the file is empty"),
        ("junk.csv", bytes(range(256)), "the file is not text"),
        # mtime=0: the content is in the test's name, which must not differ between processes.
        ("plain.gz.csv", gzip.compress(b"1,2,3\n", mtime=0), "the file is gzip data; give it"),
        ("x.parquet", b"1,2,3\n", "cannot be read: .*is not a Parquet file"),
        ("x.csv", b"PAR1" + b"\x01" * 99, "cannot be read: .*is not a Parquet file"),
    ],
)
def test_files_without_ratings_raise(spark, tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(SourceError, match=f"^{path}:? {message}"):
        read_ratings(spark, [path])


def test_wrong_gzip_suffix_raises(spark, tmp_path):
    (tmp_path / "x.csv.gz").write_text(HEADER + GOOD)
    with pytest.raises(SourceError, match=r"x.csv.gz cannot be read: not a gzip file"):
        read_ratings(spark, [str(tmp_path / "x.csv.gz")])


def test_missing_file_raises(spark, tmp_path):
    for path in (f"{tmp_path}/none.csv", f"{tmp_path}/none*.csv", f"{tmp_path}/none.parquet"):
        with pytest.raises(SourceError) as error:
            read_ratings(spark, [path])
        message = "no such file or directory; check the path"
        assert str(error.value) == f"{path}: {message}"
    path = write(tmp_path / "a[1].csv", GOOD)
    with pytest.raises(SourceError, match=r"a\[1\].csv: .*: escape them with a backslash"):
        read_ratings(spark, [path])


def test_parquet_with_string_ids_raises(spark, tmp_path):
    frame = spark.createDataFrame([("a", 2, 3.0)], "user string, item long, rating double")
    frame.write.parquet(str(tmp_path / "x"))
    with pytest.raises(SourceError, match="x: column 'user' has type string; convert ids to int"):
        read_ratings(spark, [str(tmp_path / "x")])
