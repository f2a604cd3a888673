"""What the log of one run holds, read back line by line.

One JSON object a line. Its first field is the CRC-32 of the rest of the line, so that any changed bit shows:

    {"crc32":"9c0f3a51","kind":"record","data":{...}}

Kinds: header (log_version, spec, environment, started_at), resume (environment, at, dropped_bytes), record, latency,
resource, footer (figures, finished_at). Times are naive UTC.

A damaged tail (everything after the last good line) is left out: a killed writer leaves one. A damaged line with
good ones after it is an error, and so is a good line that makes no sense.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.records.errors import CorruptLog
from harness.records.figures import Figures
from harness.records.records import Environment, LatencyRow, Record, ResourceRow
from harness.records.run_spec import RunSpec

LOG_VERSION = 1
REMEDY = "run it again with --force: this file is kept beside, as .aside-N"
_BODY = len('{"crc32":"00000000",')  # where the part of a line that its checksum covers begins
_RECORD, _ID, _NEXT = b'"kind":"record","data":', b'{"sample_id":', b',"cluster":'  # how the body of a record begins


@dataclass(frozen=True)
class Session:
    """One opening of the log: its header, or a later continuation. dropped_bytes: the damaged tail it removed."""

    environment: Environment
    at: datetime
    dropped_bytes: int = 0


@dataclass(frozen=True)
class RunFrame:
    """What a log holds besides its records.

    latencies, resources: (machine id, row). figures: the footer's, None while the run is unfinished or when rows
    were added after the footer. good_bytes: length up to the last good line; dropped_bytes: the damaged tail after it.
    """

    spec: RunSpec
    sessions: tuple[Session, ...]
    latencies: tuple[tuple[str, LatencyRow], ...]
    resources: tuple[tuple[str, ResourceRow], ...]
    figures: Figures | None
    finished_at: datetime | None
    good_bytes: int
    dropped_bytes: int


@dataclass(frozen=True)
class RunContents(RunFrame):
    """What a log holds. records: by sample id, the later of two with one id wins and keeps the earlier's place."""

    records: Mapping[str, Record]


@dataclass(frozen=True)
class RunTexts(RunFrame):
    """The same, with each record as the JSON text that it was written as, for DuckDB to read."""

    records: Sequence[bytes]


def read_log(path: Path) -> RunContents | None:
    """The contents of a log, None when not even its header is there yet. Changes nothing, needs no lock.

    Raises CorruptLog, naming the line, when a damaged line has good ones after it or a good line makes no sense.
    """
    reading = _read(path, _Reading.add)
    return reading and RunContents(**reading.frame(), records=reading.records)


def read_texts(path: Path) -> RunTexts | None:
    """As `read_log`, but whether the records make sense is left to whoever reads their texts."""
    reading = _read(path, _Reading.add_text)
    return reading and RunTexts(**reading.frame(), records=tuple(reading.texts.values()))


def texts_of(contents: RunContents) -> RunTexts:
    """The records as texts once more, with every field that a record has today."""
    texts = tuple(json.dumps(vars(record)).encode() for record in contents.records.values())
    return RunTexts(**{**vars(contents), "records": texts})


@dataclass
class _Reading:
    """Contents in the making: lines go in, in order."""

    spec: RunSpec | None = None
    sessions: list[Session] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    texts: dict[bytes, bytes] = field(default_factory=dict)
    latencies: list[tuple[str, LatencyRow]] = field(default_factory=list)
    resources: list[tuple[str, ResourceRow]] = field(default_factory=list)
    figures: Figures | None = None
    finished_at: datetime | None = None
    good_bytes: int = 0
    dropped_bytes: int = 0

    def add_text(self, body: bytes) -> None:
        """Take in a line, a record as it stands."""
        if not (self.spec and body.startswith(_RECORD + _ID)):
            self.add(body)
            return
        self.figures = self.finished_at = None
        begin = len(_RECORD)
        self.texts[body[begin : body.index(_NEXT, begin)]] = body[begin:-2]

    def add(self, body: bytes) -> None:
        """Take in a line. Raises KeyError, TypeError or ValueError when it makes no sense."""
        line = json.loads(b"{" + body)
        kind, data = line["kind"], line["data"]
        if (kind == "header") == bool(self.spec):
            raise ValueError("a log has one header, and begins with it")
        if kind in ("record", "latency", "resource"):
            self.figures = self.finished_at = None
        match kind:
            case "header":
                if data["log_version"] != LOG_VERSION:
                    raise ValueError(f"log version {data['log_version']}, this harness reads {LOG_VERSION}")
                self.spec = RunSpec(**data["spec"])
                self._session(data["environment"], data["started_at"], 0)
            case "resume":
                self._session(data["environment"], data["at"], data["dropped_bytes"])
            case "record":
                self.records[data["sample_id"]] = Record(**{**data, "entering": tuple(data["entering"])})
            case "latency":
                self.latencies.append((self.sessions[-1].environment.machine_id, LatencyRow(**data)))
            case "resource":
                self.resources.append((self.sessions[-1].environment.machine_id, ResourceRow(**data)))
            case "footer":
                self.figures = Figures(**data["figures"])
                self.finished_at = datetime.fromisoformat(data["finished_at"])
            case _:
                raise ValueError(f"unknown kind {kind!r}")

    def _session(self, environment: dict[str, Any], at: str, dropped_bytes: int) -> None:
        self.sessions.append(Session(Environment(**environment), datetime.fromisoformat(at), dropped_bytes))

    def frame(self) -> dict[str, Any]:
        """The fields of a `RunFrame`."""
        return {
            "spec": self.spec,
            "sessions": tuple(self.sessions),
            "latencies": tuple(self.latencies),
            "resources": tuple(self.resources),
            "figures": self.figures,
            "finished_at": self.finished_at,
            "good_bytes": self.good_bytes,
            "dropped_bytes": self.dropped_bytes,
        }


def _read(path: Path, add: Callable[[_Reading, bytes], None]) -> _Reading | None:
    """A log's good lines, each taken in by `add`."""
    raw = path.read_bytes()
    bodies, good_bytes = _good_lines(path, raw)
    if not bodies:
        return None
    reading = _Reading(good_bytes=good_bytes, dropped_bytes=len(raw) - good_bytes)
    for number, body in enumerate(bodies, start=1):
        try:
            add(reading, body)
        except (KeyError, TypeError, ValueError) as problem:
            raise CorruptLog(f"{path}: line {number} makes no sense ({problem!r}); {REMEDY}") from problem
    return reading


def _good_lines(path: Path, raw: bytes) -> tuple[list[bytes], int]:
    """What the checksums cover of each line up to the last good one, and the length of those lines in bytes."""
    bodies: list[bytes] = []
    good_bytes = position = 0
    first_bad: int | None = None
    for number, text in enumerate(io.BytesIO(raw), start=1):
        position += len(text)
        body = text[_BODY:]
        if text[:_BODY] != b'{"crc32":"%08x",' % zlib.crc32(body) or not body.endswith(b"\n"):
            first_bad = first_bad or number
        elif first_bad is not None:
            raise CorruptLog(f"{path}: line {first_bad} is damaged and good lines follow it; {REMEDY}")
        else:
            bodies.append(body)
            good_bytes = position
    return bodies, good_bytes


def encode_line(kind: str, data: Mapping[str, Any]) -> str:
    """One line of a log, with its checksum and line break. Raises ValueError on NaN or an infinity."""
    body = json.dumps({"kind": kind, "data": data}, separators=(",", ":"), allow_nan=False)[1:] + "\n"
    return f'{{"crc32":"{zlib.crc32(body.encode()):08x}",{body}'
