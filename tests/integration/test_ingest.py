"""Ratings in every supported form, as training reads them."""

import importlib.util
from collections import namedtuple
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from pyspark.sql import Row
from pyspark.sql.types import (
    BooleanType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
)

import small_matrix as small
from partitioners import HashPartitioner
from rddals import ALS, Rating, RatingBlock, RatingError, RatingTypeError, SettingError
from rddals.rdds.degrees import count_degrees
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source, read_batches
from rddals.rdds.links import build_links

has_arrow = importlib.util.find_spec("pyarrow") is not None
needs_arrow = pytest.mark.skipif(not has_arrow, reason="needs pyarrow")

OwnRating = namedtuple("OwnRating", "who what stars")
N = len(small.RATINGS)


def read(ratings):
    """Return all ratings of a source, sorted, as training reads them."""
    source = rating_source(ratings)
    return rows_of(source.mapPartitionsWithIndex(read_batches).collect())


def rows_of(blocks):
    blocks = list(blocks)
    assert all(isinstance(block, RatingBlock) for block in blocks)
    columns = RatingBlock.concatenate(blocks)
    assert columns.users.dtype == columns.products.dtype == np.int32
    assert columns.ratings.dtype == np.float32
    columns = (columns.users.tolist(), columns.products.tolist(), columns.ratings.tolist())
    return sorted(zip(*columns, strict=True))


def batches(rows):
    """Return batches of columns of different sizes, one of them empty."""
    users, products, ratings = small.columns()
    assert len(rows) == len(users)
    cuts = [3, 3, 10]  # the second is empty
    split = (np.split(column, cuts) for column in (users, products, ratings))
    return list(zip(*split, strict=True))


FORMS = {
    "Rating": lambda rows: [Rating(*row) for row in rows],
    "own namedtuple": lambda rows: [OwnRating(*row) for row in rows],
    "tuples": list,
    "lists": lambda rows: [list(row) for row in rows],
    "strings": lambda rows: [tuple(map(str, row)) for row in rows],
    "numpy scalars": lambda rows: [(np.int64(u), np.int16(p), np.float32(r)) for u, p, r in rows],
    "arrays of three": lambda rows: [np.array(row) for row in rows],
    "tuples of columns": batches,
    "lists of columns": lambda rows: [list(batch) for batch in batches(rows)],
    "wide columns": lambda rows: [
        (u.astype(np.float64), p.astype(np.uint16), r.astype(np.int8)) for u, p, r in batches(rows)
    ],
    "blocks": lambda rows: [RatingBlock(*batch) for batch in batches(rows)],
    "rows, then batches": lambda rows: [
        rows[0],
        Rating(*rows[1]),
        list(rows[2]),
        *batches(rows)[1:],
    ],
    "batches and rows in turn": lambda rows: [
        RatingBlock(*batches(rows)[0]),
        *rows[3:10],
        batches(rows)[3],
    ],
}


MIXED = ("rows, then batches", "batches and rows in turn")
# A class of a test module, which workers cannot import.
LOCAL = ("own namedtuple",)


@pytest.mark.parametrize("form", FORMS)
def test_partition_of_any_form(form):
    assert rows_of(read_batches(0, iter(FORMS[form](small.RATINGS)))) == sorted(small.RATINGS)


def test_rdd_of_every_form(sc):
    forms = [form for form in FORMS if form not in MIXED + LOCAL]
    # One form per partition; the last partitions are empty.
    partitions = sc.parallelize(range(15), 15)
    elements = [FORMS[form](small.RATINGS) for form in forms]
    rdd = partitions.flatMap(lambda i: elements[i] if i < len(elements) else [])
    assert read(rdd) == sorted(small.RATINGS * len(forms))


@pytest.mark.parametrize(
    "names", [["_1", "_2", "_3"], ["_c0", "_c1", "_c2"], ["0", "1", "2"], ["C1", "Col2", "column3"]]
)
def test_numbered_columns_are_taken_by_position(spark, names):
    assert read(spark.createDataFrame(list(small.RATINGS), names)) == sorted(small.RATINGS)
    four = spark.createDataFrame([(*row, 99) for row in small.RATINGS], [*names, "_4"])
    assert read(four) == sorted(small.RATINGS)


@pytest.mark.parametrize("rows_per_batch", [1, 2, 5, 1000])
def test_rows_are_read_in_batches(monkeypatch, rows_per_batch):
    from rddals.rdds import ingest

    monkeypatch.setattr(ingest, "ROWS_PER_BATCH", rows_per_batch)
    monkeypatch.setattr(ingest, "RATINGS_PER_PIECE", 4)
    pieces = list(read_batches(0, iter(small.RATINGS)))
    assert [
        t for piece in pieces for t in zip(piece.users, piece.products, piece.ratings, strict=True)
    ] == [tuple(row) for row in small.RATINGS]
    assert all(len(piece) >= 4 for piece in pieces[:-1])
    bad = [*small.RATINGS[:11], (1, 2, None)]
    with pytest.raises(RatingError, match="partition 6, row 11: rating None"):
        list(read_batches(6, iter(bad)))


def test_more_partitions_than_ratings(sc):
    few = small.RATINGS[:3]
    rdd = sc.parallelize(few, 8)
    assert read(rdd) == sorted(few)
    model = ALS.train(rdd, 2, iterations=1, seed=1)
    assert sorted(model.userFeatures().keys().collect()) == sorted({u for u, _, _ in few})


def test_links_and_degrees_read_the_same_ratings(sc):
    rdd = sc.parallelize(FORMS["blocks"](small.RATINGS), 2)
    users, products = count_degrees(rating_source(rdd))
    expected_users = {u: sum(row[0] == u for row in small.RATINGS) for u in small.USERS}
    assert dict(zip(users.ids.tolist(), users.counts.tolist(), strict=True)) == expected_users
    assert products.ids.tolist() == list(small.PRODUCTS)
    assert products.counts.sum() == N
    linked = build_links(rating_source(rdd), HashPartitioner(2), HashPartitioner(3))
    for side, degrees in zip(linked[:2], (users, products), strict=True):
        assert sum(s.ratings for s in side.summaries) == N
        assert sum(s.ids for s in side.summaries) == len(degrees.ids)


def test_model_does_not_depend_on_the_form(sc, spark):
    expected = factors(ALS.train(sc.parallelize(small.RATINGS, 2), 3, iterations=2, seed=4))
    for ratings in (
        sc.parallelize(FORMS["blocks"](small.RATINGS), 3),
        spark.createDataFrame(list(small.RATINGS), ["user", "product", "rating"]),
    ):
        model = ALS.train(ratings, 3, iterations=2, seed=4)
        np.testing.assert_allclose(factors(model), expected, atol=1e-5)


def factors(model):
    return np.concatenate([side.rows for side in model.collected_factors()])


# ------------------------------------------------------------------ DataFrames


def frame_of(spark, rows, *kinds, names=("user", "product", "rating")):
    fields = [StructField(n, kind, True) for n, kind in zip(names, kinds, strict=True)]
    return spark.createDataFrame(rows, StructType(fields))


@pytest.fixture(params=["arrow", "no arrow"])
def arrow(request, monkeypatch):
    """Reading of DataFrames with pyarrow and without."""
    if request.param == "no arrow":
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *a: None if name == "pyarrow" else find_spec(name, *a),
        )
    elif not has_arrow:
        pytest.skip("needs pyarrow")
    return request.param


@pytest.mark.parametrize(
    "kinds",
    [
        (IntegerType(), IntegerType(), FloatType()),
        (LongType(), ShortType(), DoubleType()),
        (DoubleType(), FloatType(), IntegerType()),
        (DecimalType(10, 0), DecimalType(12, 2), DecimalType(4, 1)),
        (StringType(), StringType(), StringType()),
        (IntegerType(), StringType(), DoubleType()),
    ],
    ids=lambda kinds: "-".join(kind.typeName() for kind in kinds),
)
def test_dataframe_of_any_types(spark, arrow, kinds):
    makers = {"double": float, "float": float, "string": str}
    to = [
        Decimal if isinstance(kind, DecimalType) else makers.get(kind.typeName(), int)
        for kind in kinds
    ]
    rows = [tuple(make(v) for make, v in zip(to, row, strict=True)) for row in small.RATINGS]
    assert read(frame_of(spark, rows, *kinds)) == sorted(small.RATINGS)


def test_booleans_are_ratings(spark, arrow):
    rows = [(1, 2, True), (3, 4, False)]
    frame = frame_of(spark, rows, IntegerType(), IntegerType(), BooleanType())
    assert read(frame) == [(1, 2, 1.0), (3, 4, 0.0)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1, 2, None), "rating None"),
        ((None, 2, 3.0), "user id None"),
        ((1, None, 3.0), "product id None"),
        ((1, 2, float("nan")), "rating nan"),
        ((1, 2, float("inf")), "rating inf"),
        ((1, 2**31, 3.0), "Ratings id 2147483648.* exceeds max integer value"),
        ((-(2**31) - 1, 2, 3.0), "Ratings id -2147483649.* is below min integer value"),
    ],
)
def test_invalid_dataframe_row_is_named(spark, arrow, row, words):
    rows = [(1, 2, 3.0), row, (2, 2, 3.0)]
    frame = frame_of(spark, rows, LongType(), LongType(), DoubleType()).coalesce(1)
    with pytest.raises(RatingError, match=rf"partition 0, .*row 1: .*{words}"):
        ALS.train(frame, 2, iterations=1)


def test_text_ids_of_a_dataframe_raise(spark, arrow):
    frame = frame_of(spark, [("ann", 2, 3.0)], StringType(), LongType(), DoubleType())
    with pytest.raises(RatingError, match="user id 'ann' is not an integer"):
        ALS.train(frame, 2)


def test_date_ratings_of_a_dataframe_raise(spark, arrow):
    frame = spark.createDataFrame([(1, 2, date(2020, 1, 1))], ["user", "product", "rating"])
    with pytest.raises(RatingTypeError, match=r"Column 2 .*, the rating, is of type date;"):
        ALS.train(frame, 2)


@needs_arrow
@pytest.mark.parametrize("word", [" 12", "1_2", "\t12\n", "\u0661\u0662"])
def test_number_strings_that_only_python_parses(spark, word):
    frame = frame_of(spark, [(word, "4", "2.5")], *[StringType()] * 3)
    assert read(frame) == [(12, 4, 2.5)]


@pytest.mark.parametrize("word", ["0x10", "0X10", "-0xF"])
def test_hexadecimal_strings_raise(spark, word):
    rows = [("1", "2", "3.0"), (word, "4", "2.5")]
    frame = frame_of(spark, rows, *[StringType()] * 3).coalesce(1)
    with pytest.raises(RatingError, match=f"row 1: user id '{word}' is not an integer"):
        ALS.train(frame, 2)


@needs_arrow
def test_invalid_string_is_named_with_its_row(spark):
    rows = [(str(user), str(product), str(rating)) for user, product, rating in small.RATINGS]
    rows[5] = ("3.5", *rows[5][1:])
    frame = frame_of(spark, rows, *[StringType()] * 3).coalesce(1)
    with pytest.raises(RatingError, match=r"partition 0, row 5: user id '3\.5' is"):
        ALS.train(frame, 2)


@pytest.mark.parametrize(
    ("names", "requested", "order"),
    [
        (("stamp", "rating", "item", "user"), (None, None, None), (3, 2, 1)),
        (("rating", "product", "stamp", "user"), (None, None, None), (3, 1, 0)),
        (("item", "product", "rating", "user"), (None, None, None), (3, 0, 2)),
        (("user", "film", "rating", "item"), (None, "film", None), (0, 1, 2)),
        (("a.b", "who", "`", "stars"), ("who", "a.b", "`"), (1, 0, 2)),
        (("who", "rating", "product", "x"), ("who", None, None), (0, 2, 1)),
        (("movieId", "rating", "timestamp", "userId"), (None, None, None), (3, 0, 1)),
        (("Stars", "User-ID", "x", "ISBN"), (None, "ISBN", None), (1, 3, 0)),
        (("Rating", "User", "Item", "x"), (None, None, None), (1, 2, 0)),
        (("user", "item", "rating", "product"), ("USER", None, None), (0, 1, 2)),
    ],
)
def test_columns_by_name(spark, names, requested, order):
    rows = [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)]
    frame = frame_of(spark, rows, *[DoubleType()] * 4, names=names)
    source = rating_source(frame, Columns(*requested))
    actual = rows_of(source.mapPartitionsWithIndex(read_batches).collect())
    assert actual == [tuple(row[place] for place in order) for row in rows]


@pytest.mark.parametrize(
    ("names", "requested", "words"),
    [
        (("a", "b", "c"), {"userCol": "who"}, "userCol: there is no column 'who' among"),
        (("a", "b", "c"), {"userCol": "a"}, "itemCol: there is no column 'item' among"),
        (("a", "a", "c"), {"userCol": "a"}, "userCol: there is more than one column 'a' among"),
        (("user", "item", "c"), {"ratingCol": 3}, "ratingCol must be the name of a column but"),
        (("a", "b", "c"), {"userCol": "a", "itemCol": "a", "ratingCol": "c"}, "for two purposes"),
        (("rating", "user", "what"), {}, r"None of \['rating', 'user', 'what'\] is a common name"),
        (("a", "b", "c"), {}, "for user or item or rating. Pass userCol, itemCol and ratingCol"),
        (("user id", "the.product", "rating"), {}, "for item. Pass"),
        (("User", "user", "USER"), {}, "for item or rating"),
        (("", " ", "é"), {}, "for user or item or rating"),
        (("User", "user", "item", "rating"), {}, "Several of .* are named 'User'"),
    ],
)
def test_invalid_columns_raise(spark, names, requested, words):
    kinds = [IntegerType()] * len(names)
    frame = frame_of(spark, [(1, 2, 3, 4)[: len(names)]], *kinds, names=names)
    with pytest.raises(SettingError, match=words):
        ALS.train(frame, 2, **requested)


def test_column_names_for_an_rdd_raise(sc):
    with pytest.raises(SettingError, match="userCol='user' name columns of a DataFrame, but"):
        ALS.train(sc.parallelize(small.RATINGS), 2, userCol="user")


NAMED_ROWS = {
    "Row": Row("rating", "item", "user"),
    "Row of MovieLens": Row("timestamp", "rating", "movieId", "userId"),
    "named tuple": namedtuple("Film", "stars movie_id customer"),
    "longer named tuple": namedtuple("Film", "when rating product_id uid"),
}


@pytest.mark.parametrize("kind", NAMED_ROWS)
def test_fields_are_read_by_name(kind):
    row = NAMED_ROWS[kind]
    extra = (99,) * (kind in ("Row of MovieLens", "longer named tuple"))
    rows = [row(*extra, rating, item, user) for user, item, rating in small.RATINGS]
    assert rows_of(read_batches(0, iter(rows))) == sorted(small.RATINGS)
    mixed = [*rows[:5], *small.RATINGS[5:9], Rating(*small.RATINGS[9]), *rows[10:]]
    assert rows_of(read_batches(0, iter(mixed))) == sorted(small.RATINGS)


@pytest.mark.parametrize(
    "kind", [namedtuple("Batch", "item user rating"), Row("stars", "uid", "iid")]
)
def test_column_batches_are_read_by_name(kind):
    users, products, ratings = small.columns()
    row = (
        kind(products, users, ratings)
        if hasattr(kind, "_fields")
        else kind(ratings, users, products)
    )
    assert rows_of(read_batches(0, iter([row]))) == sorted(small.RATINGS)


def test_named_tuples_of_other_names(sc):
    rows = [OwnRating(*row) for row in small.RATINGS]  # "stars" is where the rating is
    assert rows_of(read_batches(0, iter(rows))) == sorted(small.RATINGS)
    swapped = namedtuple("Swapped", "product user z")
    with pytest.raises(
        SettingError, match=r"\['product', 'user', 'z'\] is a common name for rating"
    ):
        list(read_batches(0, iter([swapped(1, 2, 3.0)])))


def test_rows_of_an_rdd_are_read_by_name(sc, spark):
    rows = [Row(rating=r, item=p, user=u) for u, p, r in small.RATINGS]
    assert read(sc.parallelize(rows, 2)) == sorted(small.RATINGS)
    assert read(spark.createDataFrame(rows).rdd) == sorted(small.RATINGS)
    assert read(sc.parallelize([Row(*row) for row in small.RATINGS])) == sorted(small.RATINGS)


def test_rows_of_unknown_fields_raise(sc):
    rows = [Row(who=u, what=p, rating=r) for u, p, r in small.RATINGS]
    with pytest.raises(
        SettingError, match=r"\['who', 'what', 'rating'\] is a common name for user"
    ):
        ALS.train(sc.parallelize(rows, 2), 2)


def test_pairs_are_read_by_name(sc):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), 2, 1, seed=1)
    known = [(user, product) for user, product, _ in small.RATINGS]
    expected = sorted(model.predictAll(sc.parallelize(known)).collect())
    assert len(expected) == len(known)
    for row in (Row("movieId", "userId"), Row("item", "user")):
        pairs = sc.parallelize([row(product, user) for user, product in known])
        assert sorted(model.predictAll(pairs).collect()) == expected
    pairs = sc.parallelize([Row(a=user, b=product) for user, product in known])
    assert sorted(model.predictAll(pairs).collect()) == expected


@pytest.mark.parametrize("width", [1, 2])
def test_dataframe_needs_three_columns(spark, width):
    frame = spark.createDataFrame([(1, 2)[:width]], ["one", "two"][:width])
    with pytest.raises(RatingError, match=r"needs three columns .* but has \['one'"):
        ALS.train(frame, 2)


def test_empty_dataframe_raises(spark, arrow):
    frame = frame_of(spark, [], IntegerType(), IntegerType(), DoubleType())
    with pytest.raises(RatingError, match="RDD is empty"):
        ALS.train(frame, 2)


@needs_arrow
def test_numeric_dataframe_is_read_as_columns(spark):
    frame = frame_of(spark, list(small.RATINGS), IntegerType(), IntegerType(), DoubleType())
    elements = rating_source(frame).collect()
    assert sum(len(users) for users, _, _ in elements) == N
    assert all(isinstance(c, np.ndarray) for element in elements for c in element)


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("ratings", [None, [], [(1, 2, 3.0)], "ratings.csv", 7, np.ones((2, 3))])
def test_ratings_must_be_an_rdd_or_a_dataframe(ratings):
    with pytest.raises(RatingTypeError, match="either an RDD or a DataFrame, but got <class "):
        ALS.train(ratings, 2)


BAD = {
    "NaN": ((1, 2, float("nan")), RatingError, "row 2: rating nan"),
    "infinity": (Rating(1, 2, float("-inf")), RatingError, "row 2: rating -inf"),
    "null": ((1, 2, None), RatingError, "row 2: rating None"),
    "no user": ((None, 2, 3.0), RatingError, "row 2: user id None"),
    "a name": (("ann", 2, 3.0), RatingError, "row 2: user id 'ann'"),
    "a long id": ((2**31, 2, 3.0), RatingError, "row 2: Ratings id 2147483648 exceeds"),
    "a short row": ((1, 2), RatingError, r"row 2: \(1, 2\) is not a rating"),
    "a long row": ((1, 2, 3.0, 4), RatingError, r"row 2: \(1, 2, 3.0, 4\) is not a rating"),
    "a number": (5, RatingTypeError, r"<class 'int'> \(partition 3, row 2\)"),
    "a string": ("1,2,3", RatingTypeError, r"<class 'str'> \(partition 3, row 2\)"),
    "a dict": ({"user": 1}, RatingTypeError, r"<class 'dict'> \(partition 3, row 2\)"),
    "nothing": (None, RatingTypeError, r"<class 'NoneType'> \(partition 3, row 2\)"),
}


def with_element(sc, element, good=(1, 2, 3.0)):
    """Return five partitions of three good elements; the third of the fourth is `element`."""
    elements = [good] * 15
    elements[11] = element
    return sc.parallelize(elements, 5)


@pytest.mark.parametrize("case", BAD)
def test_error_names_partition_row_and_value(sc, case):
    element, error, words = BAD[case]
    with pytest.raises(error, match=words) as caught:
        ALS.train(with_element(sc, element), 2)
    assert "partition 3, row 2" in str(caught.value)


@pytest.mark.parametrize("case", ["NaN", "a number"])
def test_partitioner_fit_names_partition_and_row(sc, case):
    element, error, words = BAD[case]
    with pytest.raises(error, match=words):
        ALS.train(with_element(sc, element), 2, userPartitioner="range")


ONE = np.ones(2)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((ONE, ONE, np.array([1, np.nan])), "partition 3, batch 2, row 1: rating nan"),
        ((ONE, np.array([3e9, 1]), ONE), "partition 3, batch 2, row 0: Ratings id 3000000000"),
        ((ONE, ONE, np.ones(3)), r"partition 3, batch 2: .*shapes \[\(2,\), \(2,\), \(3,\)\]"),
        ((ONE, ONE, np.array(["a", "b"])), "partition 3, batch 2: ratings are of type <U1"),
        (RatingBlock(*[np.array([1, 2**40])] * 3), "partition 3, batch 2, row 1: Ratings id"),
    ],
)
def test_error_names_partition_batch_and_row(sc, batch, words):
    with pytest.raises(RatingError, match=words):
        ALS.train(with_element(sc, batch, good=(ONE, ONE, ONE)), 2)


@pytest.mark.parametrize("requested", ["hash", "balanced"])
def test_no_ratings_raise(sc, requested):
    no_rows = (np.empty(0, int), np.empty(0, int), np.empty(0))
    for rdd in (sc.parallelize([], 3), sc.parallelize([no_rows], 1), sc.emptyRDD()):
        with pytest.raises(RatingError, match="RDD is empty"):
            ALS.train(rdd, 2, userPartitioner=requested)
