"""The README's tables are those that the figures make."""

from pathlib import Path

from bench.tables import merged, tables, with_tables

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_tables_of_what_was_measured():
    page = README.read_text()
    assert with_tables(page) == page
    for name, table in tables().items():
        assert f"<!-- {name} -->\n{table}\n<!-- end -->" in page


def test_what_was_not_measured_again_is_kept():
    before = {"machine": "a", "runs": [{"rank": 10, "s": 1}, {"rank": 50, "s": 2}]}
    now = {"machine": "a", "runs": [{"rank": 50, "s": 3}]}
    assert merged(before, now)["runs"] == [{"rank": 10, "s": 1}, {"rank": 50, "s": 3}]


def test_figures_of_two_machines_are_not_mixed():
    now = {"machine": "b", "runs": [{"rank": 50}]}
    assert merged({"machine": "a", "runs": [{"rank": 10}]}, now) == now
