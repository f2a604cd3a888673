"""A stand-in for the hub on loopback: data sets from folders, by the same addresses; it counts the bytes that it sends.

As a program it serves the folder that it is given, prints its port, and then a line for each file that is read:

    python tests/hub.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "4db1276" + "0" * 33
API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as `datasets` and `huggingface_hub` ask."""

    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = self.rfile.read(int(self.headers.get("content-length") or 0))
        if (found := FILE.fullmatch(path)) and (self.root / found[1]).is_dir():
            self._file(self.root / found[1] / found[3])
        elif (found := API.fullmatch(path)) and (self.root / found[1]).is_dir():
            self._api(self.root / found[1], *found.groups(), asked)
        else:
            self._answer(b"", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_POST = do_GET

    def _api(self, folder: Path, name: str, kind: str, _: str, below: str | None, asked: bytes) -> None:
        files = [_entry(folder, file) for file in sorted(folder.rglob("*"))]
        if kind == "tree":
            self._json([one for one in files if one["path"].startswith(below or "")])
        elif kind == "paths-info":
            paths = json.loads(asked)["paths"]
            self._json([one for one in files if one["path"] in paths])
        else:
            siblings = [{"rfilename": one["path"]} for one in files if one["type"] == "file"]
            self._json({"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            return self._answer(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = file.read_bytes()
        head = {"X-Repo-Commit": COMMIT, "ETag": f'"{_sha(content)}"', "Accept-Ranges": "bytes"}
        if asked := self.headers.get("range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            part = content[int(start) : int(end or len(content)) + 1]
            head["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
            return self._answer(part, 206, head, file.name)
        return self._answer(content, 200, head, file.name)

    def _json(self, what: Any) -> None:
        self._answer(json.dumps(what).encode(), 200, {"Content-Type": "application/json"})

    def _answer(self, body: bytes, status: int, head: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**head, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            if name:
                print(name, len(body), flush=True)

    def log_message(self, *_: Any) -> None:
        """Standard error is for errors."""


def _entry(folder: Path, file: Path) -> dict[str, Any]:
    path = file.relative_to(folder).as_posix()
    if file.is_dir():
        return {"type": "directory", "path": path, "oid": "0" * 40}
    return {"type": "file", "path": path, "oid": _sha(file.read_bytes()), "size": file.stat().st_size}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


if __name__ == "__main__":
    Hub.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
