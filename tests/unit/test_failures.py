"""Errors of the command line."""

import pytest

typer = pytest.importorskip("typer")

from rddals.cli.failures import exit_codes  # noqa: E402
from rddals.errors import SettingError  # noqa: E402


def wrapped(error):
    """Return an error raised while another was handled, as Py4J raises them."""
    try:
        try:
            raise error
        except BaseException:
            raise RuntimeError("Error while sending or receiving") from None
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingError("rank must be\n1 or more"), 2, "rddals: error: rank must be 1 or more"),
        (OSError("disk full"), 1, "rddals: error: OSError: disk full"),
        (wrapped(OSError("disk full")), 1, "rddals: error: RuntimeError: Error while"),
        (KeyboardInterrupt(), 130, "rddals: interrupted"),
        (wrapped(KeyboardInterrupt()), 130, "rddals: interrupted"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(capsys, error, code, line):
    with pytest.raises(typer.Exit) as exit, exit_codes(verbose=False):
        raise error
    assert exit.value.exit_code == code
    assert capsys.readouterr().err.startswith(line)
