"""Commands run in this process, on the Spark that runs already, and what became of them."""

from __future__ import annotations

import subprocess

import pytest


def run_here(capsys, *arguments):
    """Run a command here."""
    from rddals.cli.app import app

    with pytest.raises(SystemExit) as left:
        app(list(map(str, arguments)), prog_name="rddals")
    said = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, left.value.code or 0, said.out, said.err)


def succeeded(done):
    """What a command printed that ended well."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(code, done):
    """The one line of a command that failed with this exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("rddals: error: ")
    return line
