"""Run commands in this process, on the running Spark, and check their results."""

from __future__ import annotations

import subprocess

import pytest


def run_in_process(capsys, *arguments):
    """Run a command in this process."""
    from rddals.cli.app import app

    with pytest.raises(SystemExit) as exit_info:
        app(list(map(str, arguments)), prog_name="rddals")
    captured = capsys.readouterr()
    return subprocess.CompletedProcess(
        arguments, exit_info.value.code or 0, captured.out, captured.err
    )


def stdout_of(result):
    """Assert that a command succeeded and return its output."""
    assert result.returncode == 0, result.stderr
    return result.stdout


def error_of(code, result):
    """Assert that a command failed with this exit code and return its error line."""
    assert result.returncode == code, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("rddals: error: ")
    return line
