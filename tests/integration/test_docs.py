"""The documentation is correct: examples run, links have targets, commands exist.

Fences of ``python`` are executed and print the fence of ``text`` that follows, or nothing. The
fences of a page share one namespace, like one session. Fences of ``sh`` show commands; an rddals
command prints the fence of ``text`` that follows, if there is one.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

import partitioners
import rddals
import rddals.indexer
import rddals.measure

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:make|rddals) \S")

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def fences(text, kind):
    return [fence for fence in FENCE.finditer(text) if fence[1] == kind]


@each_page
def test_examples_print_the_shown_output(page, request, tmp_path, monkeypatch):
    text = page.read_text()
    start_folder = Path.cwd()  # the folder that Spark may write to
    before = visible(start_folder)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for example in FENCE.finditer(text):
        follows = FENCE.match(text, example.end() + len("\n"))
        shown = follows[2] if follows and follows[1] == "text" else None
        python = example[1] == "python"
        if not python and not (example[1] == "sh" and shown):
            continue
        if not python or re.search(r"\bsc\b", example[2]):
            names["sc"] = request.getfixturevalue("sc")
        line = text.count("\n", 0, example.start(2))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if python:
                # Blank lines in front make tracebacks give the page's own line numbers.
                exec(compile("\n" * line + example[2], str(page), "exec"), names)
            else:
                run_command(example[2])
        expected, actual = shown or "", printed.getvalue().replace(f"{tmp_path}/", "")
        same = doctest.OutputChecker().check_output(expected, actual, doctest.ELLIPSIS)
        assert same, f"{page}:{line}: shown\n{expected}\nbut printed\n{actual}"
    assert visible(start_folder) - before <= {"spark-warehouse"}


def visible(folder):
    """Return the names in a folder, without hidden ones."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def run_command(line):
    """Run an rddals command in this process, on a Spark that started in another folder."""
    program, command, *arguments = shlex.split(line)
    assert program == "rddals"
    arguments = [command] + [
        str(Path(word).resolve()) if Path(word).exists() or before == "--out" else word
        for before, word in pairwise([command, *arguments])
    ]
    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module("rddals.cli.app").app(arguments, prog_name=program)
    assert not exit_info.value.code


@pytest.mark.parametrize(
    "name",
    [
        module.name
        for package in (partitioners, rddals)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if ">>>" in Path(module.module_finder.find_spec(module.name).origin).read_text()
    ],
)
def test_docstring_examples(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def headings(page):
    """Return the anchors of a page's headings on GitHub."""
    lines = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def link_targets(page):
    """Yield the target and the anchor of each local link of a page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@each_page
def test_links_have_targets(page):
    for target, anchor in link_targets(page):
        assert target.exists(), f"{page} links to {target}"
        assert not anchor or anchor in headings(target), f"{page} links to {target}#{anchor}"


def test_index_links_to_every_page():
    index = ROOT / "docs" / "index.md"
    assert {target for target, _ in link_targets(index)} >= set(PAGES) - {ROOT / "README.md", index}


def commands(text):
    """Return the commands that a page shows, in fences or within sentences."""
    shown = [line for fence in fences(text, "sh") for line in fence[2].splitlines()]
    shown += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [shlex.split(line, comments=True) for line in shown if COMMAND.match(line)]


@each_page
def test_commands_exist(page):
    typer = pytest.importorskip("typer")
    from rddals.cli.app import app

    script = typer.main.get_command(app)
    makefile = (ROOT / "Makefile").read_text()
    for program, first, *rest in commands(page.read_text()):
        if program == "make":
            assert re.search(rf"^{first}:", makefile, re.MULTILINE), f"make {first}"
            for name in [word.partition("=")[0] for word in rest]:
                assert re.search(rf"^{name} \?=", makefile, re.MULTILINE), f"make ... {name}="
            continue
        if first == "--version":
            continue
        assert first in script.commands, f"rddals {first}"
        options = {name for option in script.commands[first].params for name in option.opts}
        used = {word for word in rest if word.startswith("-")} - {"--help"}
        assert used <= options, f"rddals {first} {rest}"


DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def test_reference_covers_every_public_name():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    documented = {name for page in pages for name in DIRECTIVE.findall(page.read_text())}
    for name in documented:
        pkgutil.resolve_name(name)
    covered = {name.rpartition(".")[2] for name in documented} | set(rddals.errors.__all__)
    for place in (rddals, rddals.indexer, rddals.measure, partitioners):
        assert set(place.__all__) - {"Rating"} <= covered, place.__name__
