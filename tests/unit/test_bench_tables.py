"""The README's tables are those that the figures make."""

from pathlib import Path

from bench.tables import tables, with_tables

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_tables_of_what_was_measured():
    page = README.read_text()
    assert with_tables(page) == page
    for name, table in tables().items():
        assert f"<!-- {name} -->\n{table}\n<!-- end -->" in page
