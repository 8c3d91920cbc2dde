"""A standalone cluster whose Python has NumPy and nothing else: a master and two workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyspark
import pytest

import rddals
from kernel_variants import NO_LIBRARY
from rddals import ALS
from rddals.exchange import EXCHANGES

pytestmark = pytest.mark.long

SPARK_HOME = Path(pyspark.__file__).parent
DRIVER = """
import json, sys
import rddals
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
from rddals import ALS, HalfStepDone, MatrixFactorizationModel
from rddals.indexer import index_ratings
from rddals.measure import ShuffleMeter

master, folder, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
conf = SparkConf().setMaster(master).setAppName("rddals on a cluster")
for name, value in {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.cores.max": "2",
    "spark.executor.cores": "1",
    "spark.executor.memory": "512m",
    "spark.log.level": "ERROR",
    "spark.shuffle.compress": "false",
    "spark.shuffle.readHostLocalDisk": "false",  # as if each worker had a machine of its own
    "spark.broadcast.compress": "false",
    "spark.python.unix.domain.socket.enabled": "true",
}.items():
    conf.set(name, value)
sc = SparkContext(conf=conf)


def has_rddals(_):
    import importlib.util, os
    return [(os.getppid(), importlib.util.find_spec("rddals") is not None)]


def where(_):
    import rddals, sys
    return [(rddals.__file__, sys.prefix, "scipy" in sys.modules)]


told = {"before": sc.parallelize(range(4), 4).mapPartitions(has_rddals).collect()}
ratings = sc.parallelize(rows, 2)
told["plan"] = rddals.plan(ratings, 30, blocks=3).document()
told["moved"], told["kernels"] = {}, {}
for exchange in ("shuffle", "broadcast", "join", "local"):
    done = []
    with ShuffleMeter(sc) as meter:
        model = ALS.train(
            ratings, 30, 2, 0.1, blocks=3, seed=5, exchange=exchange, listeners=[done.append])
    told["kernels"][exchange] = [step.kernels for step in model.history]
    users, products = model.collected_factors()
    told[exchange] = (users.rows @ products.rows.T).tolist()
    measured = meter.measured
    told["moved"][exchange] = {
        step.step: [step.done.read_local, step.done.read_remote, step.done.results]
        for step in measured.steps}
    told["moved"][exchange + "s"] = {
        f"{event.iteration} {event.side}": measured.broadcasts.get(event.broadcast_id)
        for event in done if isinstance(event, HalfStepDone)}
pairs = [(u, p) for u, p, _ in rows[:10]]
told["predictAll"] = sorted(map(list, model.predictAll(sc.parallelize(pairs, 2)).collect()))
told["products"] = [list(r) for r in model.recommendProducts(1, 3)]
best = model.recommendProductsForUsers(2).collect()
told["for all"] = [[user, list(map(list, ratings))] for user, ratings in best]
best = model.recommendProductsForUsers(3, excludeSeen=ratings).collect()
told["unseen"] = [[r.user, r.product] for _, ratings in best for r in ratings]
again = sc.parallelize([(user + 1000, product, r) for user, product, r in rows if user < 5], 2)
grown = model.foldIn(again)
told["folded"] = [[grown.predict(u + 1000, 2), grown.predict(u, 2)] for u in range(5)]
frame = SparkSession(sc).createDataFrame(list(map(tuple, rows)), ["user", "item", "rating"])
told["frame"] = ALS.train(frame, 30, 2, 0.1, blocks=3, seed=5).predict(1, 2)
indexed = index_ratings(sc.parallelize([(f"user {u}", f"product {p}", r) for u, p, r in rows], 3))
named = indexed.keyed(ALS.train(indexed.ratings, 30, 2, 0.1, blocks=3, seed=5))
told["named"] = sorted(user for user, _ in named.recommendProductsForUsers(1).collect())
told["by name"] = named.recommendProducts("user 1", 3)
unseen = named.recommendProductsForUsers(99, excludeSeen=frame.rdd.map(
    lambda row: (f"user {row[0]}", f"product {row[1]}", row[2])))
told["unseen by name"] = unseen.map(lambda best: len(best[1])).sum()
told["by id"] = named.model.recommendProducts(indexed._keys.ids_of(0, ["user 1"])[0], 3)
model.save(sc, f"file://{folder}/model")
told["loaded"] = MatrixFactorizationModel.load(sc, f"file://{folder}/model").predict(1, 2)
told["where"] = sc.parallelize(range(4), 4).mapPartitions(where).collect()
told["executors"] = sc._jsc.sc().getExecutorMemoryStatus().size() - 1
print(json.dumps(told))
sc.stop()
"""


#: Executors of two cores, whose Python finds no library.
LARGER = """
import json, sys
from pyspark import SparkConf, SparkContext
from rddals import ALS
from rddals.rdds.one_task import cores_of_a_task

master, rows = sys.argv[1], json.loads(sys.argv[2])
conf = SparkConf().setMaster(master).setAppName("rddals on larger executors")
for name, value in {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.cores.max": "2",
    "spark.executor.cores": "2",
    "spark.executor.memory": "512m",
    "spark.log.level": "ERROR",
    "spark.executorEnv.RDDALS_NATIVE_LIBRARY": "/nowhere",
}.items():
    conf.set(name, value)
sc = SparkContext(conf=conf)
source = sc.parallelize(rows, 2)
source.count()
told = {"threads": cores_of_a_task(sc).threads}
for exchange in ("local", "shuffle"):
    model = ALS.train(source, 30, 2, 0.1, blocks=3, seed=5, exchange=exchange, listeners=())
    users, products = model.collected_factors()
    told[exchange] = (users.rows @ products.rows.T).tolist()
    told[exchange + " kernels"] = [step.kernels for step in model.history]
try:
    ALS.train(source, 30, 2, 0.1, blocks=3, kernels="native", exchange="shuffle", listeners=())
except Exception as error:
    told["native"] = [type(error).__name__, str(error)]
print(json.dumps(told))
sc.stop()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter that can import NumPy, and neither SciPy, PySpark nor rddals."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    numpy = Path(np.__file__).parent
    for name in ("numpy", "numpy.libs"):
        if (numpy.parent / name).exists():
            (packages / name).symlink_to(numpy.parent / name)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """The URL of a cluster's master; two workers have registered with it."""
    folder = tmp_path_factory.mktemp("cluster")
    port, ui = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    one = ["--host", "127.0.0.1"]
    worker = [*one, "--cores", "2", "--memory", "1g", "--webui-port", "0", url]
    commands = [
        ["master.Master", *one, "--port", str(port), "--webui-port", str(ui)],
        ["worker.Worker", "--work-dir", str(folder / "1"), *worker],
        ["worker.Worker", "--work-dir", str(folder / "2"), *worker],
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_")}
    environment["SPARK_HOME"] = str(SPARK_HOME)
    processes = []
    with (folder / "log").open("w") as log:
        for name, *arguments in commands:
            command = [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name}"]
            processes.append(
                subprocess.Popen(
                    [*map(str, command), *arguments],
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        yield wait_for_workers(url, ui, 2, folder / "log")
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


def wait_for_workers(url, ui, count, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ui}/json/", timeout=5) as answer:
                if json.load(answer)["aliveworkers"] == count:
                    return url
        except (OSError, ValueError):  # no answer yet, or a page of a server half set up
            pass
        time.sleep(0.2)
    raise TimeoutError(f"no cluster within 90 s:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def told(master, bare_python, ratings, tmp_path_factory):
    """What a driver that has rddals found on workers that have not."""
    folder = tmp_path_factory.mktemp("driver")
    environment = {**os.environ, "PYSPARK_PYTHON": str(bare_python), "PYTHONPATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, master, folder, json.dumps(ratings)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-5000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_workers_python_has_no_rddals(bare_python, told, tmp_path):
    for package in ("rddals", "partitioners", "scipy"):
        ran = subprocess.run(
            [bare_python, "-c", f"import {package}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": ""},
        )
        assert f"No module named '{package}'" in ran.stderr
    assert not any(found for _, found in told["before"])


def test_it_was_sent_there(bare_python, told):
    assert told["executors"] == 2
    for file, prefix, scipy in told["where"]:
        assert file.endswith("rddals.zip/rddals/__init__.py")
        assert prefix == str(bare_python.parents[1])
        assert not scipy


@pytest.fixture
def local(sc, ratings):
    """The same model from a local master."""
    model = ALS.train(sc.parallelize(ratings, 2), 30, 2, 0.1, blocks=3, seed=5, listeners=())
    yield model
    model.unpersist()


def test_every_exchange_gives_the_model_of_a_local_master(local, told):
    users, products = local.collected_factors()
    for exchange in EXCHANGES:
        np.testing.assert_allclose(told[exchange], users.rows @ products.rows.T, atol=1e-4)


@NO_LIBRARY
def test_the_library_is_sent_along(told):
    assert told["kernels"] == {exchange: ["native"] * 4 for exchange in EXCHANGES}


def test_larger_executors_without_the_library(local, master, bare_python, ratings, tmp_path):
    environment = {**os.environ, "PYSPARK_PYTHON": str(bare_python), "PYTHONPATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", LARGER, master, json.dumps(ratings)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-5000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["threads"] == 2
    users, products = local.collected_factors()
    for exchange in ("local", "shuffle"):
        np.testing.assert_allclose(told[exchange], users.rows @ products.rows.T, atol=1e-4)
        assert told[f"{exchange} kernels"] == ["numpy"] * 4
    kind, message = told["native"]
    assert kind == "SettingError"
    assert "kernels='native' but there is no compiled library: /nowhere" in message


def test_what_moves_between_the_workers_is_what_was_planned(told):
    assert told["plan"]["executors"] == 2
    (placement,) = told["plan"]["placements"]
    shuffled, broadcast = (placement["half_steps"][name] for name in ("shuffle", "broadcast"))
    # Users send in the start and where they are solved; products where they are.
    for sender, solved, of_shuffle, of_broadcast in zip(
        ("users", "products"), ("products", "users"), shuffled, broadcast, strict=True
    ):
        local, remote, _ = told["moved"]["shuffle"][f"2 {solved}"]
        assert local + remote == of_shuffle["most_bytes"]
        assert remote > 0
        _, _, results = told["moved"]["broadcast"][f"1 {sender}"]
        carried = results + told["moved"]["broadcasts"][f"1 {sender}"]
        # Beside the rows there are their ids and what a task reports: much, of so few.
        assert of_broadcast["payload"] < carried < 3 * of_broadcast["payload"] + 20_000
    assert told["moved"]["shuffles"] == {name: None for name in told["moved"]["broadcasts"]}


def test_predictions_recommendations_and_files(local, told):
    assert told["loaded"] == pytest.approx(local.predict(1, 2), abs=1e-4)
    assert len(told["predictAll"]) == 10
    for user, product, predicted in told["predictAll"]:
        assert predicted == pytest.approx(local.predict(user, product), abs=1e-4)
    best = [r.product for r in local.recommendProducts(1, 3)]
    assert [product for _, product, _ in told["products"]] == best
    assert len(told["for all"]) == 30
    assert all(len(best) == 2 for _, best in told["for all"])


def test_new_users_dataframes_and_names(local, ratings, told):
    for new, known in told["folded"]:
        assert new == pytest.approx(known, abs=1e-5)
    assert len(told["unseen"]) == 3 * 30
    assert not set(map(tuple, told["unseen"])) & {(user, product) for user, product, _ in ratings}
    assert told["frame"] == pytest.approx(local.predict(1, 2), abs=1e-4)
    assert told["named"] == sorted({f"user {user}" for user, _, _ in ratings})
    assert [score for *_, score in told["by name"]] == [score for *_, score in told["by id"]]
    assert {user for user, _, _ in told["by name"]} == {"user 1"}
    assert told["unseen by name"] == 30 * 40 - len(ratings)


def test_nothing_is_sent_to_local_workers(sc, ratings):
    before = list(sc._python_includes)
    ALS.train(sc.parallelize(ratings, 2), 2, 1, seed=1, listeners=()).unpersist()
    assert sc._python_includes == before
    assert rddals.__file__.endswith("rddals/__init__.py")


APP = """
import sys
import rddals
from pyspark import SparkContext

rddals.install()
from pyspark.mllib.recommendation import ALS, Rating

sc = SparkContext(appName="submitted")
rows = [Rating(u, p, (u * p) % 5 + 1) for u in range(20) for p in range(9)]
model = ALS.train(sc.parallelize(rows, 2), 4, 5, 0.1, blocks=2, seed=7)
print(sys.argv[1:], rddals.__file__.split("/")[-3], type(model).__module__)
print(round(model.predict(3, 4), 3))
sc.stop()
"""


@pytest.mark.parametrize("where", ["local[2]", "cluster"])
def test_spark_submit_takes_the_package(sc, master, bare_python, tmp_path, where):
    app = tmp_path / "app.py"
    app.write_text(APP)
    subprocess.run(
        [Path(sys.executable).with_name("rddals"), "package", "rddals.zip"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"SPARK_HOME": str(SPARK_HOME), "PYSPARK_PYTHON": str(bare_python)}
    environment["PYSPARK_DRIVER_PYTHON"] = str(bare_python)
    submit = [
        SPARK_HOME / "bin" / "spark-submit",
        "--master",
        master if where == "cluster" else where,
    ]
    submit += ["--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.log.level=ERROR"]
    submit += ["--executor-memory", "512m", "--py-files", "rddals.zip", app, "--mine"]
    ran = subprocess.run(
        list(map(str, submit)),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-5000:]
    rows = [(u, p, (u * p) % 5 + 1) for u in range(20) for p in range(9)]
    expected = ALS.train(sc.parallelize(rows, 2), 4, 5, 0.1, blocks=2, seed=7, listeners=())
    told, predicted = ran.stdout.splitlines()
    assert told == "['--mine'] rddals.zip rddals.model.matrix"
    assert float(predicted) == pytest.approx(expected.predict(3, 4), abs=1e-3)
