"""A standalone cluster of a master and two workers, whose Python has only NumPy."""

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
    "spark.shuffle.readHostLocalDisk": "false",  # as with one machine per worker
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


report = {"before": sc.parallelize(range(4), 4).mapPartitions(has_rddals).collect()}
ratings = sc.parallelize(rows, 2)
report["plan"] = rddals.plan(ratings, 30, blocks=3).document()
report["moved"], report["kernels"] = {}, {}
for exchange in ("shuffle", "broadcast", "join", "local"):
    done = []
    with ShuffleMeter(sc) as meter:
        model = ALS.train(
            ratings, 30, 2, 0.1, blocks=3, seed=5, exchange=exchange, listeners=[done.append])
    report["kernels"][exchange] = [step.kernels for step in model.history]
    users, products = model.collected_factors()
    report[exchange] = (users.rows @ products.rows.T).tolist()
    measured = meter.measured
    report["moved"][exchange] = {
        step.step: [step.done.read_local, step.done.read_remote, step.done.results]
        for step in measured.steps}
    report["moved"][exchange + "s"] = {
        f"{event.iteration} {event.side}": measured.broadcasts.get(event.broadcast_id)
        for event in done if isinstance(event, HalfStepDone)}
pairs = [(u, p) for u, p, _ in rows[:10]]
report["predictAll"] = sorted(map(list, model.predictAll(sc.parallelize(pairs, 2)).collect()))
report["products"] = [list(r) for r in model.recommendProducts(1, 3)]
best = model.recommendProductsForUsers(2).collect()
report["for all"] = [[user, list(map(list, ratings))] for user, ratings in best]
best = model.recommendProductsForUsers(3, excludeSeen=ratings).collect()
report["unseen"] = [[r.user, r.product] for _, ratings in best for r in ratings]
again = sc.parallelize([(user + 1000, product, r) for user, product, r in rows if user < 5], 2)
grown = model.foldIn(again)
report["folded"] = [[grown.predict(u + 1000, 2), grown.predict(u, 2)] for u in range(5)]
frame = SparkSession(sc).createDataFrame(list(map(tuple, rows)), ["user", "item", "rating"])
report["frame"] = ALS.train(frame, 30, 2, 0.1, blocks=3, seed=5).predict(1, 2)
indexed = index_ratings(sc.parallelize([(f"user {u}", f"product {p}", r) for u, p, r in rows], 3))
named = indexed.keyed(ALS.train(indexed.ratings, 30, 2, 0.1, blocks=3, seed=5))
report["named"] = sorted(user for user, _ in named.recommendProductsForUsers(1).collect())
report["by name"] = named.recommendProducts("user 1", 3)
unseen = named.recommendProductsForUsers(99, excludeSeen=frame.rdd.map(
    lambda row: (f"user {row[0]}", f"product {row[1]}", row[2])))
report["unseen by name"] = unseen.map(lambda best: len(best[1])).sum()
report["by id"] = named.model.recommendProducts(indexed.keys.ids_of(0, ["user 1"])[0], 3)
model.save(sc, f"file://{folder}/model")
report["loaded"] = MatrixFactorizationModel.load(sc, f"file://{folder}/model").predict(1, 2)
report["where"] = sc.parallelize(range(4), 4).mapPartitions(where).collect()
report["executors"] = sc._jsc.sc().getExecutorMemoryStatus().size() - 1
print(json.dumps(report))
sc.stop()
"""


#: Executors of two cores whose Python finds no compiled library.
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
report = {"threads": cores_of_a_task(sc).threads}
for exchange in ("local", "shuffle"):
    model = ALS.train(source, 30, 2, 0.1, blocks=3, seed=5, exchange=exchange, listeners=())
    users, products = model.collected_factors()
    report[exchange] = (users.rows @ products.rows.T).tolist()
    report[exchange + " kernels"] = [step.kernels for step in model.history]
try:
    ALS.train(source, 30, 2, 0.1, blocks=3, kernels="native", exchange="shuffle", listeners=())
except Exception as error:
    report["native"] = [type(error).__name__, str(error)]
print(json.dumps(report))
sc.stop()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter that can import NumPy, but not SciPy, PySpark or rddals."""
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
    """URL of a cluster's master with two registered workers."""
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
        except (OSError, ValueError):  # the server is still starting
            pass
        time.sleep(0.2)
    raise TimeoutError(f"no cluster within 90 s:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def report(master, bare_python, ratings, tmp_path_factory):
    """Results of a driver that has rddals on workers that do not."""
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


def test_worker_python_has_no_rddals(bare_python, report, tmp_path):
    for package in ("rddals", "partitioners", "scipy"):
        ran = subprocess.run(
            [bare_python, "-c", f"import {package}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": ""},
        )
        assert f"No module named '{package}'" in ran.stderr
    assert not any(found for _, found in report["before"])


def test_package_is_sent_to_workers(bare_python, report):
    assert report["executors"] == 2
    for file, prefix, scipy in report["where"]:
        assert file.endswith("rddals.zip/rddals/__init__.py")
        assert prefix == str(bare_python.parents[1])
        assert not scipy


@pytest.fixture
def local(sc, ratings):
    """The same model from a local master."""
    model = ALS.train(sc.parallelize(ratings, 2), 30, 2, 0.1, blocks=3, seed=5, listeners=())
    yield model
    model.unpersist()


def test_every_exchange_gives_the_model_of_a_local_master(local, report):
    users, products = local.collected_factors()
    for exchange in EXCHANGES:
        np.testing.assert_allclose(report[exchange], users.rows @ products.rows.T, atol=1e-4)


@NO_LIBRARY
def test_compiled_library_is_sent_to_workers(report):
    assert report["kernels"] == {exchange: ["native"] * 4 for exchange in EXCHANGES}


def test_executors_without_the_compiled_library(local, master, bare_python, ratings, tmp_path):
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
    report = json.loads(ran.stdout.splitlines()[-1])
    assert report["threads"] == 2
    users, products = local.collected_factors()
    for exchange in ("local", "shuffle"):
        np.testing.assert_allclose(report[exchange], users.rows @ products.rows.T, atol=1e-4)
        assert report[f"{exchange} kernels"] == ["numpy"] * 4
    kind, message = report["native"]
    assert kind == "SettingError"
    assert "kernels='native' but the compiled library is unavailable: /nowhere" in message


def test_traffic_between_workers_matches_the_plan(report):
    assert report["plan"]["executors"] == 2
    (placement,) = report["plan"]["placements"]
    shuffled, broadcast = (placement["half_steps"][name] for name in ("shuffle", "broadcast"))
    # Users send initially and when they are solved, products only when they are solved.
    for sender, solved, of_shuffle, of_broadcast in zip(
        ("users", "products"), ("products", "users"), shuffled, broadcast, strict=True
    ):
        local, remote, _ = report["moved"]["shuffle"][f"2 {solved}"]
        assert local + remote == of_shuffle["most_bytes"]
        assert remote > 0
        _, _, results = report["moved"]["broadcast"][f"1 {sender}"]
        carried = results + report["moved"]["broadcasts"][f"1 {sender}"]
        # Ids and task reports come on top of the rows, which is much for so few rows.
        assert of_broadcast["payload"] < carried < 3 * of_broadcast["payload"] + 20_000
    assert report["moved"]["shuffles"] == {name: None for name in report["moved"]["broadcasts"]}


def test_predictions_recommendations_and_files(local, report):
    assert report["loaded"] == pytest.approx(local.predict(1, 2), abs=1e-4)
    assert len(report["predictAll"]) == 10
    for user, product, predicted in report["predictAll"]:
        assert predicted == pytest.approx(local.predict(user, product), abs=1e-4)
    best = [r.product for r in local.recommendProducts(1, 3)]
    assert [product for _, product, _ in report["products"]] == best
    assert len(report["for all"]) == 30
    assert all(len(best) == 2 for _, best in report["for all"])


def test_fold_in_dataframes_and_keys(local, ratings, report):
    for new, known in report["folded"]:
        assert new == pytest.approx(known, abs=1e-5)
    assert len(report["unseen"]) == 3 * 30
    assert not set(map(tuple, report["unseen"])) & {(user, product) for user, product, _ in ratings}
    assert report["frame"] == pytest.approx(local.predict(1, 2), abs=1e-4)
    assert report["named"] == sorted({f"user {user}" for user, _, _ in ratings})
    assert [score for *_, score in report["by name"]] == [score for *_, score in report["by id"]]
    assert {user for user, _, _ in report["by name"]} == {"user 1"}
    assert report["unseen by name"] == 30 * 40 - len(ratings)


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
def test_spark_submit_with_the_package(sc, master, bare_python, tmp_path, where):
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
    report, predicted = ran.stdout.splitlines()
    assert report == "['--mine'] rddals.zip rddals.model.matrix"
    assert float(predicted) == pytest.approx(expected.predict(3, 4), abs=1e-3)
