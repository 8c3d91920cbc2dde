"""The documentation holds what it says: examples run, links lead somewhere, commands exist.

A fence of ``python`` is executed; what it prints is what the fence of ``text`` right behind it
shows, or nothing. The fences of a page share one namespace, like one session. A fence of ``sh``
shows commands; what a command of ours prints is what the fence of ``text`` right behind it shows,
if one is there. A fence of ``pyi`` states signatures.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
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
import rddals.model.local

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
def test_examples_print_what_the_page_shows(page, request, tmp_path, monkeypatch):
    text = page.read_text()
    beside = Path.cwd()  # where Spark may be
    before = visible(beside)
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
        wanted, got = shown or "", printed.getvalue().replace(f"{tmp_path}/", "")
        same = doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
        assert same, f"{page}:{line}: shown\n{wanted}\nbut printed\n{got}"
    assert visible(beside) - before <= {"spark-warehouse"}


def visible(folder):
    """Names of what a folder holds, hidden ones left out."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def run_command(line):
    """Run a command of ours here, on the running Spark, which started in another folder."""
    program, command, *arguments = shlex.split(line)
    assert program == "rddals"
    arguments = [command] + [
        str(Path(word).resolve()) if Path(word).exists() or before == "--out" else word
        for before, word in pairwise([command, *arguments])
    ]
    with pytest.raises(SystemExit) as left:
        importlib.import_module("rddals.cli.app").app(arguments, prog_name=program)
    assert not left.value.code


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
    """The anchors that GitHub gives to a page's headings."""
    lines = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def linked(page):
    """The pages that a page links to, with the anchor if there is one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@each_page
def test_links_lead_somewhere(page):
    for target, anchor in linked(page):
        assert target.exists(), f"{page} links to {target}"
        assert not anchor or anchor in headings(target), f"{page} links to {target}#{anchor}"


def test_the_index_leads_to_every_page():
    index = ROOT / "docs" / "index.md"
    assert {target for target, _ in linked(index)} >= set(PAGES) - {ROOT / "README.md", index}


def commands(text):
    """Every command of ours that a page shows, in a fence of its own or within a sentence."""
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
        assert first in script.commands, f"rddals {first}"
        options = {name for option in script.commands[first].params for name in option.opts}
        used = {word for word in rest if word.startswith("-")} - {"--help"}
        assert used <= options, f"rddals {first} {rest}"


def signatures(owner):
    """Names, kinds and defaults of the parameters of a class's public methods."""
    methods = {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(owner, callable)
        if not name.startswith("_")
    }
    properties = inspect.getmembers(owner, lambda member: isinstance(member, property))
    return methods | {name: "property" for name, _ in properties}


def test_the_reference_states_true_signatures():
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    stubs = "\n".join(fence[2] for fence in fences(text, "pyi"))
    stated = {}
    exec("from __future__ import annotations\n" + stubs, stated)
    classes = [node.name for node in ast.parse(stubs).body if isinstance(node, ast.ClassDef)]
    assert classes
    actual = {
        **vars(rddals.indexer),
        **vars(rddals.measure),
        "LocalModel": rddals.model.local.LocalModel,
        "plan": rddals.plan,
    }
    for name in classes:
        owner = getattr(rddals, name) if name in rddals.__all__ else actual[name]
        assert signatures(stated[name]) == signatures(owner), name
    functions = [n.name for n in ast.parse(stubs).body if isinstance(n, ast.FunctionDef)]
    for name in functions:
        own, ours = (inspect.signature(m[name]).parameters for m in (stated, actual))
        assert [(p.name, p.kind, p.default) for p in own.values()] == [
            (p.name, p.kind, p.default) for p in ours.values()
        ], name
    places = (rddals, rddals.indexer, rddals.measure, partitioners)
    for name in (name for place in places for name in place.__all__):
        assert f"`{name}`" in text or name in classes, f"api.md does not tell of {name}"
