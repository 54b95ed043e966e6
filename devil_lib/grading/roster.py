"""The list of a class, as a CSV file."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import dataclass
from pathlib import Path


class RosterError(ValueError):
    """A roster that cannot be used; the message names the line and says what to change."""


@dataclass(frozen=True)
class Student:
    """id: nbgrader's name for the student. name: first and last name, "" where the roster has none. email: "" as well."""

    id: str
    name: str = ""
    email: str = ""


def read_roster(path: str | Path) -> list[Student]:
    """The students of a CSV file with the columns that `nbgrader db student import` reads: id, and if there are any first_name,
    last_name and email. Commas, semicolons or tabs, with or without a byte order mark, in UTF-8.

    Raises:
        RosterError: no such file, another encoding, no column `id`, nobody in it, or an id that is missing, comes twice or
            holds a slash.
    """
    path = Path(path)
    if not path.is_file():
        raise RosterError(f"there is no roster {path}: name a CSV file with a column `id`")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RosterError(
            f"{path.name} is not in UTF-8 ({error.reason} at byte {error.start}): save it as CSV UTF-8"
        ) from None
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    columns = [(column or "").strip().lower() for column in rows.fieldnames or []]
    if not columns:
        raise RosterError(
            f"{path.name} is empty: its first line names the columns, among them `id`, and each other line is a student"
        )
    if "id" not in columns:
        raise RosterError(f"{path.name} has no column `id`; its first line names {', '.join(columns)}")
    rows.fieldnames = columns
    seen: dict[str, int] = {}
    students = []
    for row in rows:
        # The same letter with an accent can be written in two ways.
        values = {
            column: unicodedata.normalize("NFC", (row.get(column) or "").strip()) for column in columns if column
        }
        if not any(values.values()):
            continue
        name, line = values["id"], rows.line_num
        if not name:
            raise RosterError(f"{path.name}, line {line}: the student has no id")
        if "/" in name or "\\" in name or name.startswith("."):
            raise RosterError(
                f"{path.name}, line {line}: {name!r} cannot be an id, because nbgrader names a folder after it"
            )
        if name in seen:
            raise RosterError(f"{path.name}, line {line}: the id {name!r} stands in line {seen[name]} already")
        seen[name] = line
        full = " ".join(part for part in (values.get("first_name", ""), values.get("last_name", "")) if part)
        students.append(Student(name, full, values.get("email", "")))
    if not students:
        raise RosterError(f"{path.name} names its columns and no student")
    return students
