"""The results of a study on disk, written atomically."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rddals.errors import StudyError
from rddals.study.grid import Combination

#: Version of the format of ``study.json``.
SCHEMA = 1
NAME = "study.json"

#: Bytes per iteration: total, and in the half-steps in which each side sends.
PLANNED = ("least_bytes", "most_bytes", "users_bytes", "products_bytes", "messages")
MEASURED = ("bytes", "users_bytes", "products_bytes", "messages")
#: Parts of the task time of an iteration.
PARTS = ("compute", "serialisation", "shuffle", "rest")
FIGURES = ("iteration_seconds", "placing_seconds", "training_seconds", "loss")
LISTS = ("half_steps", "stages")
COLUMNS = (
    *("exchange", "partitioner", "blocks", "rank"),
    *(f"planned_{name}" for name in PLANNED),
    *(f"measured_{name}" for name in MEASURED),
    *(f"{part}_seconds" for part in PARTS),
    *FIGURES,
)


class Record:
    """The ``study.json`` of a folder.

    Each run is written before the next one begins, so an interrupted study can resume. `StudyError`
    is raised if the folder cannot be written, or contains something else or runs of another
    `subject`, which are not comparable.
    """

    def __init__(self, folder: Path, subject: dict[str, Any], about: dict[str, Any]) -> None:
        check_folder(folder)
        self._file = folder / NAME
        subject = json.loads(json.dumps(subject))
        try:
            text = self._file.read_text() if self._file.exists() else None
        except OSError as error:
            raise StudyError(
                f"{self._file} cannot be read: {error.strerror or error}. Pass another folder."
            ) from None
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            **about,
            **subject,
            "placements": [],
            "runs": [],
        }
        if text is not None:
            document = self._validated(text, subject)
            self.document = {**document, **about}
            if self.document != document:
                self._write()

    def _validated(self, text: str, subject: dict[str, Any]) -> dict[str, Any]:
        foreign = StudyError(f"{self._file} is not a study. Pass another folder.")
        try:
            document: dict[str, Any] = json.loads(text)
            schema = document["schema"]
        except (ValueError, KeyError, TypeError):
            raise foreign from None
        if schema != SCHEMA:
            raise StudyError(
                f"{self._file} has schema {schema!r}, but this version of rddals writes {SCHEMA}. "
                "Pass another folder."
            )
        for name, expected, actual in _differences(subject, document):
            raise StudyError(
                f"{self._file} has {name} {actual!r}, but this study has {expected!r}: their runs "
                "are not comparable. Pass another folder."
            )
        try:
            list(map(Combination.of, document["runs"]))
            list(map(_placement_key, document["placements"]))
        except (KeyError, TypeError):
            raise foreign from None
        for number, run in enumerate(document["runs"]):
            fault = _find_fault(run)
            if fault is not None:
                raise StudyError(
                    f"{self._file} is damaged: in run {number}, {fault}. Pass another folder."
                )
        return document

    @property
    def done(self) -> list[Combination]:
        """Combinations that have been run."""
        return [Combination.of(run) for run in self.document["runs"]]

    def add(self, run: dict[str, Any]) -> None:
        """Record a finished run."""
        self.document["runs"].append(run)
        self._write()

    def add_placement(self, placement: dict[str, Any]) -> None:
        """Record a placement unless it is already recorded."""
        if _placement_key(placement) not in map(_placement_key, self.document["placements"]):
            self.document["placements"].append(placement)

    def write_csv(self) -> Path:
        """Write ``study.csv``, one line per run."""
        file = self._file.with_suffix(".csv")
        rows = [_csv_row(run) for run in self.document["runs"]]
        with atomic_write(file) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        return file

    def _write(self) -> None:
        with atomic_write(self._file) as temporary:
            temporary.write_text(json.dumps(self.document))


def _placement_key(placement: Mapping[str, Any]) -> tuple[str, int]:
    """Return the key that identifies a placement."""
    return placement["partitioner"], placement["blocks"]


def check_folder(folder: Path) -> None:
    """Raise `StudyError` unless `folder` is writable or can be created."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise StudyError(
            f"{folder} cannot be written: {existing} is not a folder, or is not writable. Pass "
            "another folder."
        )


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `file` atomically on success."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(file)
    except OSError as error:
        raise StudyError(
            f"{file} cannot be written: {error.strerror or error}. Pass another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _differences(
    expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name and both values of each differing field."""
    for name, value in expected.items():
        other = actual.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            for inner, one, another in _differences(value, other):
                yield f"{name}.{inner}", one, another
        elif value != other:
            yield name, value, other


def _find_fault(run: Mapping[str, Any]) -> str | None:
    """Return a description of the first fault of a run, or None."""
    try:
        figures = _csv_row(run)
        lists = {name: run[name] for name in LISTS}
    except (KeyError, TypeError) as error:
        return f"{error} is missing or has the wrong type"
    for name, value in lists.items():
        if not isinstance(value, list):
            return f"{name} is {value!r}"
    for name in COLUMNS[2:]:
        if not isinstance(figures[name], (int, float, type(None))):
            return f"{name} is {figures[name]!r}"
    return None


def _csv_row(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as a row of ``study.csv``."""
    planned = run["planned"] or dict.fromkeys(PLANNED)
    return {
        **{name: run[name] for name in ("exchange", "partitioner", "blocks", "rank")},
        **{f"planned_{name}": planned[name] for name in PLANNED},
        **{f"measured_{name}": run["measured"][name] for name in MEASURED},
        **{f"{part}_seconds": run["task_seconds"][part] for part in PARTS},
        **{name: run[name] for name in FIGURES},
    }
