"""What a study has found so far: files that are whole at any moment."""

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

__all__ = ["PARTS", "SCHEMA", "Record", "atomic_write", "check_folder"]

#: Of ``study.json``; another number is another meaning.
SCHEMA = 1
NAME = "study.json"

#: Bytes of an iteration, in all and in the half-steps in which a side sends.
PLANNED = ("least_bytes", "most_bytes", "users_bytes", "products_bytes", "messages")
MEASURED = ("bytes", "users_bytes", "products_bytes", "messages")
#: What the tasks of an iteration spend their time on.
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

    Every run is in the file before the next one begins: a study that was interrupted, or killed,
    goes on where it was.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    subject : dict
        What all runs have in common: ``ratings``, ``settings`` and where they run. Runs of another
        subject cannot be compared, so a folder that holds some is refused.
    about : dict
        What else there is to say.

    Attributes
    ----------
    document : dict
        All of ``study.json``; docs/reference/study.md says what it holds.

    Raises
    ------
    StudyError
        If the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, subject: dict[str, Any], about: dict[str, Any]) -> None:
        check_folder(folder)
        self._file = folder / NAME
        subject = json.loads(json.dumps(subject))
        try:
            found = self._file.read_text() if self._file.exists() else None
        except OSError as error:
            raise StudyError(f"{folder}: {error.strerror or error}; pass another folder.") from None
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            **about,
            **subject,
            "placements": [],
            "runs": [],
        }
        if found is not None:
            document = self._checked(found, subject)
            self.document = {**document, **about}
            if self.document != document:
                self._write()

    def _checked(self, text: str, subject: dict[str, Any]) -> dict[str, Any]:
        foreign = StudyError(f"{self._file} is no study; pass another folder.")
        try:
            document: dict[str, Any] = json.loads(text)
            schema = document["schema"]
        except (ValueError, KeyError, TypeError):
            raise foreign from None
        if schema != SCHEMA:
            raise StudyError(
                f"{self._file} has schema {schema!r}, and this rddals writes {SCHEMA}; pass "
                "another folder."
            )
        for name, ours, theirs in _differences(subject, document):
            raise StudyError(
                f"{self._file} was made with {name} {theirs!r}, and this is {ours!r}: runs of both "
                "cannot be compared. Pass another folder."
            )
        try:
            list(map(Combination.of, document["runs"]))
            list(map(_placed, document["placements"]))
        except (KeyError, TypeError):
            raise foreign from None
        for number, run in enumerate(document["runs"]):
            fault = _fault(run)
            if fault is not None:
                raise StudyError(
                    f"{self._file} is damaged: of run {number}, {fault}; pass another folder."
                )
        return document

    @property
    def done(self) -> list[Combination]:
        """What has been run."""
        return [Combination.of(run) for run in self.document["runs"]]

    def add(self, run: dict[str, Any]) -> None:
        """Put down a run that is finished."""
        self.document["runs"].append(run)
        self._write()

    def add_placement(self, placement: dict[str, Any]) -> None:
        """Put down a placement, unless it is there."""
        if _placed(placement) not in map(_placed, self.document["placements"]):
            self.document["placements"].append(placement)

    def write_csv(self) -> Path:
        """Write ``study.csv``, a line for every run."""
        file = self._file.with_suffix(".csv")
        rows = [_flat(run) for run in self.document["runs"]]
        with atomic_write(file) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        return file

    def _write(self) -> None:
        with atomic_write(self._file) as temporary:
            temporary.write_text(json.dumps(self.document))


def _placed(placement: Mapping[str, Any]) -> tuple[str, int]:
    """What tells a placement from the others."""
    return placement["partitioner"], placement["blocks"]


def check_folder(folder: Path) -> None:
    """Refuse what is no folder and cannot become one, before anything long.

    Raises
    ------
    StudyError
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise StudyError(
            f"{folder} cannot be written: {there} is no folder, or not one to write to; pass "
            "another folder."
        )


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A file to write that takes the place of `file` at once, when it is complete."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(file)
    except OSError as error:
        raise StudyError(
            f"{file} cannot be written: {error.strerror or error}; pass another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Names of what is not the same in both, and what it is."""
    for name, value in ours.items():
        other = theirs.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            for inner, its, others in _differences(value, other):
                yield f"{name}.{inner}", its, others
        elif value != other:
            yield name, value, other


def _fault(run: Mapping[str, Any]) -> str | None:
    """What is not as it should be in a run, if anything."""
    try:
        figures = _flat(run)
        lists = {name: run[name] for name in LISTS}
    except (KeyError, TypeError) as error:
        return f"{error} is missing or of another kind"
    for name, value in lists.items():
        if not isinstance(value, list):
            return f"{name} is {value!r}"
    for name in COLUMNS[2:]:
        if not isinstance(figures[name], (int, float, type(None))):
            return f"{name} is {figures[name]!r}"
    return None


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a line of ``study.csv``."""
    planned = run["planned"] or dict.fromkeys(PLANNED)
    return {
        **{name: run[name] for name in ("exchange", "partitioner", "blocks", "rank")},
        **{f"planned_{name}": planned[name] for name in PLANNED},
        **{f"measured_{name}": run["measured"][name] for name in MEASURED},
        **{f"{part}_seconds": run["task_seconds"][part] for part in PARTS},
        **{name: run[name] for name in FIGURES},
    }
