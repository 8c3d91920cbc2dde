"""The tables of the documentation match the recorded measurements."""

from bench.tables import PAGES, merged, tables, with_tables


def test_pages_show_the_measured_tables():
    pages = [page.read_text() for page in PAGES]
    for page in pages:
        assert with_tables(page) == page
    for name, table in tables().items():
        assert any(f"<!-- {name} -->\n{table}\n<!-- end -->" in page for page in pages), name


def test_earlier_measurements_are_retained():
    before = {"machine": "a", "runs": [{"rank": 10, "s": 1}, {"rank": 50, "s": 2}]}
    now = {"machine": "a", "runs": [{"rank": 50, "s": 3}]}
    assert merged(before, now)["runs"] == [{"rank": 10, "s": 1}, {"rank": 50, "s": 3}]


def test_measurements_of_two_machines_are_not_mixed():
    now = {"machine": "b", "runs": [{"rank": 50}]}
    assert merged({"machine": "a", "runs": [{"rank": 10}]}, now) == now
