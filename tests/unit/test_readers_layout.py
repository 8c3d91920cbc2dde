"""Detecting the layout of a file of ratings, without Spark."""

from __future__ import annotations

import pytest

from rddals.errors import SourceError
from rddals.sources.columns import pick_columns
from rddals.sources.layout import complaint, detect


@pytest.mark.parametrize(
    ("name", "line", "separator", "fields"),
    [
        ("u.data", "196\t242\t3\t881250949", "\t", 4),
        ("ratings.dat", "1::1193::5::978300760", "::", 4),
        ("ua.base", "1\t1\t5\t874965758", "\t", 4),
        ("test.data", "1,1,5.0", ",", 3),
        ("some.txt", "1;2;3", ";", 3),
        ("some.txt", "-1|2|3e0", "|", 3),
    ],
)
def test_without_a_header(name, line, separator, fields):
    layout = detect(line, name)
    assert (layout.separator, layout.fields) == (separator, fields)
    assert layout.columns == (0, 1, 2)
    assert layout.header is None


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("userId,movieId,rating,timestamp", (0, 1, 2)),
        ("user_id,item_id,rating", (0, 1, 2)),
        ("User,Product,Score", (0, 1, 2)),
        ('"rating","user id","ISBN","item"', (1, 3, 0)),
        ("timestamp\tplay_count\tartistID\tuserID", (3, 2, 1)),
        # "rating" is the better name for a rating than "count".
        ("count,user,item,rating", (1, 2, 3)),
    ],
)
def test_usual_names_in_a_header(header, columns):
    layout = detect(header, "x.csv")
    assert layout.columns == columns
    assert layout.header == header


def test_requested_columns():
    layout = detect("who,what,how much,rating", "x.csv", ("Who", "what", "how much"))
    assert layout.columns == (0, 1, 2)
    assert layout.names == ("who", "what", "how much")


def test_file_name_decides_if_the_first_line_is_broken():
    layout = detect("196 242", "u.data")
    assert layout.complaint("196 242").startswith("1 field where 4 are expected (tab separated)")


@pytest.mark.parametrize(
    ("line", "columns", "message"),
    [
        ("a,b,c", None, "no column has a common name for user; the columns are: a, b, c"),
        ("user,item,c", None, "no column has a common name for rating"),
        ("user,item,rating,USER", None, "several columns are named 'user', among"),
        ("a,b,c,b", ("a", "b", "c"), "several columns are named 'b', among"),
        ("a,b,c", ("a", "b", "d"), "there is no column 'd'; the columns are: a, b, c"),
        ("a,b,c", ("a", "a", "c"), "a, a, c name one column for two purposes"),
        ("1,2,3", ("a", "b", "c"), "the first line is not a header: '1,2,3'"),
        ("hello world", None, "neither a rating nor a header: 'hello world'"),
        ("PK\x03\x04...", None, "a zip archive; unpack it"),
        ("\x1f\ufffd", None, "gzip data; give it a name that ends in .gz"),
        ('{"user": 1}', None, "JSON; convert it"),
        ("\x00\x01\x02", None, r"not text, it starts with '\x00\x01\x02'"),
    ],
)
def test_files_without_ratings_raise(line, columns, message):
    with pytest.raises(SourceError) as raised:
        detect(line, "x", columns)
    assert message in str(raised.value)


def test_first_line_with_a_number_is_not_a_header():
    layout = detect("1,two,3", "x.csv")
    assert layout.header is None
    assert layout.complaint("1,two,3").startswith("item 'two' is not an integer")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2", "2 fields where 4 are expected"),
        ("1,2,3,4,5", "5 fields where 4 are expected"),
        ("x,2,3,4", "user 'x' is not an integer"),
        ("1,2.5,3,4", "item '2.5' is not an integer"),
        ("1,,3,4", "no item"),
        ("1,2,,4", "no rating"),
        ("1,2,many,4", "rating 'many' is not a number"),
        ("1,2,NaN,4", "rating 'NaN' is not a finite"),
        ("1,2,-1e39,4", "rating '-1e39' is not a finite"),
        ("2147483648,2,3,4", "user 2147483648 does not fit 32 bits"),
        ('1,"2,3",4,5', "item '2,3' is not an integer"),
    ],
)
def test_complaint_about_a_line(line, message):
    assert detect("user,item,rating,x").complaint(line).startswith(message)


def test_complaint_about_a_row():
    assert complaint((1, None, 3.0)).startswith("no item")
    assert complaint((1, 2**31, 3.0)).startswith("item 2147483648 does not fit")
    assert complaint((1, 2, float("inf"))).startswith("rating 'inf' is not a finite")


def test_pick_columns_ignores_case_and_punctuation():
    assert pick_columns(["Movie-ID", "RATING", "user.id"]) == (2, 0, 1)
