"""The commands: output, files and exit codes.

Tests of pipes, terminals, signals and the start of Spark run a process of their own. The others run
in this process, on the shared Spark.
"""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest
from pyspark import SparkContext

from cli_runs import error_of, run_in_process, stdout_of
from rddals import ALS, MatrixFactorizationModel
from rddals.cli.app import app
from rddals.cli.context import spark_is_configured
from rddals.exchange.choice import readable_bytes
from rddals.measure import ShuffleMeter, read_event_log
from rddals.planning.forecast import NAMES

RDDALS = str(Path(sys.executable).with_name("rddals"))
TRAIN = ("--rank", "3", "--iterations", "4", "--lambda", "0.1", "--seed", "5", "--blocks", "2")


def run_process(*arguments, **environment):
    """Run a command as a process, with pipes for stdout and stderr."""
    return subprocess.run(
        [RDDALS, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def rddals(sc, capsys):
    """Function that runs a command in this process, on the running Spark."""
    return partial(run_in_process, capsys)


def documented(command, document):
    """Return whether the reference documents all fields of a document."""
    page = Path(__file__).parents[2] / "docs/reference/command-line.md"
    (listed,) = re.findall(rf"^\| `{command}` \| (`.*) \|$", page.read_text(), re.MULTILINE)
    return all(f"`{field}`" in listed for field in fields(document))


def fields(document):
    """Return the names of a document's fields, nested ones included."""
    if isinstance(document, list):
        document = document[0] if document else {}
    if not isinstance(document, dict):
        return set()
    return set(document).union(*map(fields, document.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def csv(folder, ratings):
    path = folder / "ratings.csv"
    path.write_text("userId,movieId,rating\n" + "".join(f"{u},{p},{r}\n" for u, p, r in ratings))
    return str(path)


@pytest.fixture(scope="module")
def trained(_spark, folder, csv):
    """Folder of a model trained by a command, and the command's output."""
    out = str(folder / "model")
    with redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as exit_info:
        app(["train", csv, *TRAIN, "--holdout", "0.2", "--out", out])
    assert not exit_info.value.code
    return out, output.getvalue()


@pytest.fixture
def model(sc, trained):
    return MatrixFactorizationModel.load(sc, trained[0])


def test_train_in_a_pipe_prints_plain_lines(trained, model):
    out, output = trained
    assert "\x1b" not in output and "\r" not in output
    losses = re.findall(r"^iteration +(\d)/4 +loss +([\d,.]+)", output, re.MULTILINE)
    assert [int(iteration) for iteration, _ in losses] == [1, 2, 3, 4]
    falling = [float(loss.replace(",", "")) for _, loss in losses]
    assert falling == sorted(falling, reverse=True)
    assert re.search(r"^held-out RMSE +\d\.\d{4} over \d+ ratings", output, re.MULTILINE)
    assert output.rstrip().endswith(out)
    assert model.rank == 3


def test_train_json(rddals, folder, csv, sc):
    out = str(folder / "implicit")
    options = ("--implicit", "--alpha", "2", "--partitioner", "balanced", "--exchange", "shuffle")
    options += ("--precision", "single", "--holdout", "0.3", "--json", "--out", out)
    document = json.loads(stdout_of(rddals("train", csv, *TRAIN, *options)))
    free = {"settings", "held_out", "bytes_per_half_step"}
    assert documented("train", {k: v for k, v in document.items() if k not in free})
    assert document["exchange"]["name"] == "shuffle"
    assert len(document["history"]) == document["settings"]["iterations"] == 4
    assert set(document["bytes_per_half_step"]["users_send"]) == {*NAMES}
    assert 0 < document["held_out"]["ranking"]["ndcg"] <= 1
    assert MatrixFactorizationModel.load(sc, out).rank == 3


def test_recommend(rddals, trained, model):
    document = json.loads(
        stdout_of(rddals("recommend", trained[0], "--user", "7", "--num", "4", "--json"))
    )
    best = model.recommendProducts(7, 4)
    assert document["recommendations"] == [
        {"product": r.product, "prediction": pytest.approx(r.rating)} for r in best
    ]
    lines = stdout_of(rddals("recommend", trained[0], "--product", "7", "--num", "2")).splitlines()
    assert [line.split() for line in lines[2:]] == [
        [str(r.user), f"{r.rating:.4f}"] for r in model.recommendUsers(7, 2)
    ]


def test_evaluate(rddals, folder, trained, model):
    # User 999 is unknown to the model: counted, not scored.
    path = folder / "others.csv"
    path.write_text("userId,movieId,rating\n1,2,4\n7,3,1.5\n999,3,5\n")
    document = json.loads(stdout_of(rddals("evaluate", trained[0], str(path), "--json")))
    errors = [model.predict(1, 2) - 4, model.predict(7, 3) - 1.5]
    assert document["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / 2))
    assert document["mae"] == pytest.approx(sum(map(abs, errors)) / 2)
    assert documented("evaluate", document)
    assert (document["ratings"], document["predicted"], document["unknown"]) == (3, 2, 1)


def test_plan(rddals, csv, ratings):
    arguments = ("--rank", "3", "--partitioner", "all", "--blocks", "2,4")
    document = json.loads(stdout_of(rddals("plan", csv, *arguments, "--executors", "2", "--json")))
    free = set(NAMES)  # of exchanges
    placements = document["placements"]
    half_steps = [half_step for p in placements for half_step in p["half_steps"].values()]
    assert documented("plan", {k: v for k, v in document.items() if k != "placements"})
    assert documented("plan", [{k: v for k, v in placements[0].items() if k != "half_steps"}])
    assert documented("plan", half_steps[0]) and free == set(placements[0]["half_steps"])
    assert (document["ratings"], document["executors"]) == (len(ratings), 2)
    assert [(p["partitioner"], p["blocks"]) for p in placements] == [
        (name, [count, count])
        for name in ("hash", "range", "balanced", "locality")
        for count in (2, 4)
    ]
    lines = stdout_of(rddals("plan", csv, *arguments, "--exchange", "shuffle")).splitlines()
    users_send = placements[0]["half_steps"]["shuffle"][0]
    row = next(line for line in lines if re.match("hash +2  shuffle", line))
    assert readable_bytes(users_send["most_bytes"]) in row
    assert "join" not in "".join(lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPARK_CONF_DIR", "/etc/spark"),
        ("HADOOP_CONF_DIR", "/etc/hadoop"),
        ("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell"),
        ("SPARK_SUBMIT_OPTS", "-Xss2m -Dspark.master=local[3]"),
    ],
)
def test_spark_is_configured_by_the_environment(monkeypatch, name, value):
    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    for variable in ("PYSPARK_GATEWAY_PORT", "SPARK_HOME", "SPARK_CONF_DIR"):
        monkeypatch.delenv(variable, raising=False)
    assert not spark_is_configured()
    monkeypatch.setenv(name, value)
    assert spark_is_configured()


def test_spark_is_configured_by_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert not spark_is_configured()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/spark-defaults.conf").touch()
    assert spark_is_configured()


def test_plan_of_local_files_needs_no_spark(rddals, csv):
    arguments = ("plan", csv, "--partitioner", "all", "--blocks", "2,4", "--json")
    without_java = {"JAVA_HOME": "/nowhere", "PATH": ""}
    local = json.loads(stdout_of(run_process(*arguments, **without_java)))
    spark = json.loads(stdout_of(rddals(*arguments)))
    for document in (local, spark):  # without measured times
        del document["seconds"]
        for placement in document["placements"]:
            del placement["fit_seconds"]
            del placement["users"]["seconds"], placement["products"]["seconds"]
            del placement["choice"]["reason"]
    assert local == spark
    output = error_of(1, run_process(*arguments, "--master", "local[2]", **without_java))
    assert "Spark did not start with --master local[2]" in output


def test_plan_without_ratings(rddals):
    sizes = ("--users", "1e9", "--products", "1e8", "--ratings", "1e11", "--executors", "2000")
    document = json.loads(
        stdout_of(rddals("plan", *sizes, "--rank", "100", "--degrees", "lognormal:1.2", "--json"))
    )
    assert (document["degrees"], document["users"]) == ("lognormal:1.2", 10**9)
    assert len(document["placements"]) == 3
    output = stdout_of(rddals("plan", *sizes, "--rank", "100", "--blocks", "2000"))
    assert re.search(r"^hash +2,000  shuffle +\d\d\.\d TiB", output, re.MULTILINE)


def test_measure(rddals, sc, tmp_path, monkeypatch):
    log, temporary = tmp_path / "log", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with ShuffleMeter(sc) as meter:
        source = sc.parallelize([(1, 2, 3.0), (2, 2, 1.0), (2, 3, 4.0)], 2)
        ALS.train(source, 2, 1, blocks=2, exchange="shuffle", listeners=()).unpersist()
        assert meter.measured.steps
        # Clean-up events of Spark come later, so the test reads the copy and not the meter.
        shutil.copy(*temporary.glob("rddals-meter-*/*"), log)
    found = json.loads(json.dumps(read_event_log(log).document()))
    document = json.loads(stdout_of(rddals("measure", str(log), "--json")))
    assert documented("measure", document)
    assert document == {"log": str(log), **found}
    output = stdout_of(rddals("measure", str(log)))
    assert re.search(r"^1 products +\d+ +\d+ B", output, re.MULTILINE)
    assert re.search(
        rf"^total +\S+ \S+ written .* in {found['total']['tasks']} tasks", output, re.M
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "{csv}", "--out", "{new}", "--rank", "0"), "--rank"),
        (("train", "{csv}", "--rank", "2"), "--out"),
        (("train", "{csv}", "--out", "{new}", "--exchange", "carrier-pigeon"), "carrier-pigeon"),
        (("recommend", "{model}", "--user", "x"), "--user"),
        (("plan", "{csv}", "--rank", "0"), "--rank"),
        (("measure",), "EVENT_LOG"),
        (("wander",), "wander"),
    ],
)
def test_invalid_option_exits_with_2_and_usage(rddals, trained, csv, folder, arguments, message):
    names = {"csv": csv, "model": trained[0], "new": str(folder / "new")}
    result = rddals(*(argument.format(**names) for argument in arguments))
    assert result.returncode == 2
    assert message in result.stderr and "Usage" in result.stderr and result.stdout == ""
    assert not (folder / "new").exists()


# One process without Spark for all commands, as its imports take seconds.
RUN_ALL = """
import contextlib, io, json, sys
from pyspark import SparkContext
from rddals.cli.app import app

for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            app(arguments, prog_name="rddals")
        except SystemExit as end:
            print(json.dumps([end.code, stderr.getvalue(), SparkContext._gateway is not None]))
"""
INVALID_SETTINGS = {
    ("train", "{csv}", "--out", "{new}", "--holdout", "1"): "--holdout .* but got 1.0",
    ("train", "{csv}", "--out", "{new}", "--columns", "a,b"): "--columns a,b",
    ("recommend", "{model}"): "--user ID .* or --product ID",
    ("evaluate", "{model}", "{csv}", "--seen", "{csv}"): "--seen .* --implicit",
    ("evaluate", "{model}", "{csv}", "--top", "5"): "--top .* --implicit",
    ("train", "{csv}", "--out", "{new}", "--alpha", "5"): "--alpha .* --implicit",
    ("plan", "{csv}", "--exchange", "shuffle,post"): "--exchange post: pass all, or some of shuf",
    ("plan", "{csv}", "--partitioner", "modulo"): "--partitioner modulo: pass all, or some of hash",
    ("plan", "{csv}", "--blocks", "4,0"): "--blocks 0: pass a positive whole number",
    ("plan", "{csv}", "--executors", "1.5"): r"--executors 1\.5: pass a positive whole number",
    ("plan", "{csv}", "--users", "9"): "--users replaces RATINGS, which are given",
    ("plan", "--users", "9"): "--products is missing; pass it, or RATINGS",
    ("plan", "--partitioner", "range"): "--users is missing; pass it, or RATINGS",
}


def test_settings_are_checked_before_spark_starts(trained, csv, folder):
    names = {"csv": csv, "model": trained[0], "new": str(folder / "new")}
    commands = [[argument.format(**names) for argument in command] for command in INVALID_SETTINGS]
    # An invalid master: a command that starts Spark fails with another error.
    commands = [[*command, "--master", "none"] for command in commands]
    ran = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)], capture_output=True, text=True
    )
    answers = [json.loads(line) for line in stdout_of(ran).splitlines()]
    for command, message, answer in zip(commands, INVALID_SETTINGS.values(), answers, strict=True):
        code, output, started = answer
        assert re.search(
            message, error_of(2, subprocess.CompletedProcess(command, code, "", output))
        )
        assert not started


def test_invalid_setting_exits_with_2(folder, csv):
    ran = run_process("train", csv, "--out", str(folder / "new"), "--holdout", "1")
    assert "--holdout must be from 0 to below 1 but got 1.0" in error_of(2, ran)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "{bad}", "--out", "{new}"), "nan"),
        (("train", "{new}.csv", "--out", "{new}"), "new.csv"),
        (("train", "{csv}", "--out", "{model}"), "--overwrite"),
        (("train", "{csv}", "--out", "{folder}", "--overwrite"), "is not a model"),
        (("train", "{csv}", "--out", "{csv}/model"), "ratings.csv/model cannot be created"),
        (("train", "{csv}", "--out", ""), "--out is empty"),
        (("train", "-", "--out", "{new}"), "standard input"),
        (("recommend", "{model}", "--user", "12345"), "12345"),
        (("recommend", "{csv}", "--user", "1"), "ratings.csv"),
        (("recommend", "{new}", "--user", "1"), "no such directory"),
        (("evaluate", "{model}", "{empty}"), "empty.csv"),
        (("plan", "{bad}"), "nan"),
        (("plan", "{empty}", "--partitioner", "balanced"), "empty.csv contains no ratings"),
        (("measure", "{csv}"), "ratings.csv is not a Spark event log"),
    ],
)
def test_invalid_arguments_exit_with_2(rddals, trained, csv, folder, arguments, message):
    new, bad, empty = (folder / name for name in ("new", "bad.csv", "empty.csv"))
    bad.write_text("userId,movieId,rating\n1,2,4\n1,3,nan\n")
    empty.write_text("userId,movieId,rating\n")
    names = {"csv": csv, "model": trained[0], "new": new, "bad": bad, "empty": empty}
    result = rddals(*(argument.format(**names, folder=folder) for argument in arguments))
    assert message in error_of(2, result)
    assert not new.exists()


def test_failing_spark_start_exits_with_1(trained):
    result = run_process("recommend", trained[0], "--user", "1", "--master", "nonsense://there")
    line = error_of(1, result)
    assert "nonsense://there" in line and "Java" not in line
    Path(line.rpartition(" ")[2]).unlink()  # the log that the message names


def test_overwrite_replaces_a_model(rddals, folder, csv, sc):
    out = str(folder / "twice")
    for rank in ("2", "4"):
        options = ("--rank", rank, "--iterations", "1", "--out", out, "--overwrite")
        stdout_of(rddals("train", csv, *options))
    assert MatrixFactorizationModel.load(sc, out).rank == 4
    assert not Path(f"{out}.new").exists()


@pytest.mark.long
def test_ctrl_c_exits_with_130_and_leaves_no_model(folder, csv):
    out = folder / "interrupted"
    process = subprocess.Popen(
        [RDDALS, "train", csv, "--rank", "2", "--iterations", "100000", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert any(re.match("iteration +2/", line) for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal: to the whole foreground group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["rddals: interrupted"]
    assert not out.exists()


@pytest.mark.long
def test_closed_pipe_does_not_stop_the_training(folder, csv, sc):
    out = folder / "unread"
    process = subprocess.Popen(
        [RDDALS, "train", csv, "--iterations", "4", "--rank", "2", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().startswith("ratings")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0
    assert MatrixFactorizationModel.load(sc, str(out)).rank == 2


@pytest.mark.long
def test_demo_on_a_terminal():
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [RDDALS, "demo"], stdout=terminal, stderr=terminal, env=environment
    ) as demo:
        os.close(terminal)
        seen = b""
        try:
            while part := os.read(controller, 1 << 16):
                seen += part
        except OSError:  # a terminal reports its end this way
            pass
    os.close(controller)
    assert demo.returncode == 0
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", seen.decode())
    for title in ("1 Ratings", "2 Link blocks", "3 Exchange", "4 Alternate", "5 Held-out error"):
        assert title in text
    assert text.count("━" * 40) >= 1
    rmse = dict(re.findall(r"(MLlib|rddals) +│ +(\d\.\d+) ", text))
    assert rmse.keys() == {"MLlib", "rddals"}
    assert float(rmse["MLlib"]) == pytest.approx(float(rmse["rddals"]), abs=2e-4)
    _, recommended = text.split("6 Recommend")
    assert len(re.findall(r"│ +\d+ +│ +\d\.\d\d +│", recommended)) == 10
