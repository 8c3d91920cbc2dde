"""``rddals study``: running, interrupting and resuming, and its report in a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from rddals.cli.app import app
from rddals.planning.forecast import NAMES
from rddals.study.grid import MLLIB, Combination

pytest.importorskip("plotly")

ROOT = Path(__file__).parents[2]
RDDALS = str(Path(sys.executable).with_name("rddals"))
SAMPLE = str(Path(pyspark.__file__).parent / "data/mllib/als/sample_movielens_ratings.txt")
GRID = ("--partitioner", "balanced", "--blocks", "3", "--rank", "2", "--iterations", "3")
FIGURES = {"bytes", "prediction", "heat", "skew", "time", "timeline", "mllib"}


def study(*arguments):
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as exit_info:
        app(("study", *arguments), prog_name="rddals")
    return exit_info.value.code


@pytest.fixture(scope="module")
def folder(_spark, tmp_path_factory):
    """A study with every exchange and MLlib, of five runs."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    assert study(SAMPLE, *GRID, "--mllib", "-o", str(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "study.json").read_text())


def test_every_combination_is_run_once(document):
    runs = [Combination.of(run) for run in document["runs"]]
    assert len(runs) == 5
    assert set(runs) == {Combination(MLLIB, "hash", 3, 2)} | {
        Combination(exchange, "balanced", 3, 2) for exchange in NAMES
    }


def test_measured_bytes_match_the_plan(document):
    for run in document["runs"]:
        if run["exchange"] == "shuffle":
            for name in ("users_bytes", "products_bytes", "messages"):
                assert run["measured"][name] == run["planned"][name]
            assert run["measured"]["bytes"] == run["planned"]["most_bytes"]
        if run["exchange"] == "join":
            planned = run["planned"]
            assert planned["least_bytes"] <= run["measured"]["bytes"] <= planned["most_bytes"]
        if run["exchange"] == "broadcast":
            # On top of the rows: their ids, and some kilobytes of metrics of each of six tasks.
            more = run["measured"]["bytes"] - run["planned"]["least_bytes"]
            assert 0 < more < 6 * 8192
            assert run["measured"]["messages"] == 0


def test_loss_does_not_depend_on_exchange_or_placement(document):
    losses = [run["loss"] for run in document["runs"] if run["exchange"] != MLLIB]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_parts_of_a_half_step_fit_its_duration(document):
    for run in document["runs"]:
        for step in run["half_steps"]:
            parts = [step[part] for part in ("compute", "serialisation", "shuffle", "rest")]
            # Tasks run two at a time.
            assert all(part >= 0 for part in parts) and 0 < sum(parts) <= 2 * step["seconds"]


def test_placements_count_every_rating_and_row(document):
    for placement in document["placements"]:
        for side in ("users", "products"):
            assert sum(placement[side]["ratings"]) == document["ratings"]["ratings"] == 1501
            assert sum(placement[side]["ids"]) == document["ratings"][side]
            assert len(placement[side]["rows_between"]) == 3
            assert sum(placement[side]["sent"]) == sum(map(sum, placement[side]["rows_between"]))


def test_reference_documents_every_field(document):
    page = (ROOT / "docs" / "reference" / "study.md").read_text()
    documented = set(re.findall(r"`(\w+)`", page))

    def fields(value):
        if isinstance(value, dict):
            return set(value).union(*map(fields, value.values()))
        return set().union(*map(fields, value)) if isinstance(value, list) else set()

    assert fields(document) <= documented


def test_finished_runs_are_not_repeated(folder, document, capsys):
    before = (folder / "study.json").stat().st_mtime_ns
    (folder / "report.html").unlink()
    assert study(SAMPLE, *GRID, "-o", str(folder), "--json") == 0
    captured = capsys.readouterr()
    assert "4, all complete" in captured.err
    assert json.loads(captured.out)["runs"] == 5
    assert (folder / "study.json").stat().st_mtime_ns == before
    assert (folder / "report.html").exists()


def test_study_releases_everything(sc, footprint, tmp_path):
    options = ("--exchange", "shuffle", "--partitioner", "hash", "--blocks", "2", "--rank", "1")
    assert study(SAMPLE, *options, "--iterations", "3", "-o", str(tmp_path / "study")) == 0
    assert not footprint.remaining("persisted RDD", "shuffle file", "broadcast file", "thread")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--exchange", "mail"), "--exchange mail: pass all, or some of shuffle, broadcast, join"),
        (("--blocks", "0"), "--blocks 0: pass a positive whole number"),
        (("--rank", "2,,3"), "--rank 2,,3: pass values separated by commas"),
        (("--seed", "7"), "has settings.seed 0, but this study has 7"),
        (("--lambda", "inf"), "lambda"),
    ],
)
def test_invalid_options_exit_with_2(folder, arguments, message, capsys):
    before = (folder / "study.json").read_text()
    assert study(SAMPLE, *GRID, "-o", str(folder), *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert (folder / "study.json").read_text() == before


def test_invalid_ratings_exit_with_2(sc, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("1,2,3\n1,x,3\n")
    assert study(str(bad), "-o", str(tmp_path / "study")) == 2
    assert "bad.csv, line 2" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
    (tmp_path / "taken").touch()
    assert study(SAMPLE, "-o", str(tmp_path / "taken")) == 2
    assert "taken is not a folder" in capsys.readouterr().err


def test_runs_before_a_failure_are_reported(sc, tmp_path, capsys):
    folder = tmp_path / "study"
    options = ["--exchange", "shuffle", "--partitioner", "hash", "--blocks", "2", "--rank", "1,90"]
    # Without a penalty, most of 90 factors are undetermined.
    assert study(SAMPLE, *options, "--lambda", "0", "--iterations", "3", "-o", str(folder)) == 1
    captured = capsys.readouterr()
    assert "too few independent ratings for rank 90" in captured.err
    assert "report.html, of the completed runs" in captured.out
    assert (folder / "report.html").exists()
    rows = (folder / "study.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows] == ["rank", "1"]


@pytest.mark.long
def test_interrupted_study_resumes(sc, tmp_path):
    """Runs that finished before the signal are retained, and the rest is run."""
    folder = tmp_path / "study"
    arguments = [SAMPLE, *GRID, "--partitioner", "hash,balanced", "-o", str(folder)]
    # Like the shared Spark, which resumes the study.
    spark_options = ["--master", sc.master, "--conf", "spark.broadcast.compress=true"]
    process = subprocess.Popen(
        [RDDALS, "study", *arguments, *spark_options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (folder / "study.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    captured, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (captured, errors)
    assert (folder / "report.html").exists()
    before = json.loads((folder / "study.json").read_text())["runs"]
    assert 1 <= len(before) < 8
    assert study(*arguments) == 0
    after = json.loads((folder / "study.json").read_text())["runs"]
    assert after[: len(before)] == before
    assert len(after) == 8  # four exchanges by two partitioners


def browser():
    """Return the system's Chromium, or None for Playwright's own."""
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, programs), None)


@pytest.fixture(scope="module")
def page(folder):
    """The report in a browser without network; errors in the page fail the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(
                executable_path=browser(), args=["--no-sandbox", "--disable-background-networking"]
            )
        except playwright.Error as error:
            pytest.skip(f"no Chromium (playwright install chromium): {error.message[:60]}")
        page = chromium.new_context(offline=True).new_page()
        page_errors, requests = [], []
        page.on("console", lambda message: page_errors.append(message.text))
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((folder / "report.html").as_uri())
        page.wait_for_function(
            f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {len(FIGURES)}"
        )
        yield page
        chromium.close()
        assert not page_errors
        assert [url for url in requests if not url.startswith("data:")] == [
            (folder / "report.html").as_uri()
        ]


def test_every_figure_is_drawn(page):
    drawn = {plot.get_attribute("id"): plot for plot in page.locator(".js-plotly-plot").all()}
    assert set(drawn) == FIGURES
    for name, plot in drawn.items():
        box = plot.bounding_box()
        assert box["width"] > 500 and box["height"] > 300, name
        marks = plot.locator(".point, .points path, .hm image, .boxlayer .trace")
        assert marks.count(), name
    # Nothing is wider than the page.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def plotted(page, figure):
    """Return a figure's traces from the browser, with packed arrays unpacked."""
    return page.evaluate(
        """id => document.getElementById(id)._fullData.map(trace => ({
            name: trace.name,
            x: trace.x && Array.from(trace.x),
            y: trace.y && Array.from(trace.y),
            z: trace.z && Array.from(trace.z, row => Array.from(row)),
        }))""",
        figure,
    )


def test_figures_show_the_measured_numbers(page, document):
    rddals_runs = [run for run in document["runs"] if run["exchange"] != MLLIB]
    moved = {trace["name"]: trace for trace in plotted(page, "bytes")}
    for exchange, trace in moved.items():
        runs = [run for run in rddals_runs if run["exchange"] == exchange]
        assert trace["x"] == [run["partitioner"] for run in runs]
        assert trace["y"] == [run["measured"]["bytes"] for run in runs]
    assert set(moved) == set(NAMES)
    rows = [trace["z"] for trace in plotted(page, "heat")]
    assert rows == [
        placement[side]["rows_between"]
        for side in ("users", "products")
        for placement in document["placements"]
    ]
    parts = {trace["name"]: trace["x"] for trace in plotted(page, "time")}
    for part in ("compute", "serialisation", "shuffle", "rest"):
        assert parts[part] == [run["task_seconds"][part] for run in rddals_runs]
    planned = {trace["name"]: trace for trace in plotted(page, "prediction")}
    for exchange in moved:
        runs = [run for run in rddals_runs if run["exchange"] == exchange]
        assert planned[exchange]["x"] == [run["planned"]["most_bytes"] for run in runs]
    (mllib_run,) = [run for run in document["runs"] if run["exchange"] == MLLIB]
    mllib_traces = [trace for trace in plotted(page, "mllib") if trace["name"] == MLLIB]
    assert [trace["y"] for trace in mllib_traces] == [
        [mllib_run["measured"]["bytes"]],
        [mllib_run["iteration_seconds"]],
    ]


def test_table_lists_every_run(page, document):
    rows = [
        [cell.replace(",", "") for cell in row.locator("td").all_inner_texts()]
        for row in page.locator("#runs tbody tr").all()
    ]
    assert len(rows) == len(document["runs"])
    for row, run in zip(rows, document["runs"], strict=True):
        assert row[:4] == [str(run[name]) for name in ("exchange", "partitioner", "blocks", "rank")]
        assert row[5] == str(run["measured"]["bytes"])
        assert row[8] == f"{run['iteration_seconds']:.3f}"


def test_page_shows_the_findings(page, document):
    from rddals.study.findings import findings

    assert page.locator("#findings").inner_text() == " ".join(findings(document))
