"""The routes of the Hugging Face Hub that a push and a download use, on loopback, with a repository in memory.

Small files travel inside the commit; weights as LFS objects, which is the hub's way for them without Xet.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
WEIGHTS = (".safetensors", ".onnx", ".bin")


class Repository:
    """Commits, each a mapping of file names to contents, oldest first."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"})

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes]) -> str:
        content = repr((len(self.commits), sorted(files.items()))).encode()
        self.commits[hashlib.sha1(content).hexdigest()] = files
        return self.head


class FakeHub(ThreadingHTTPServer):
    """Starts at once; `requests` lists method and path of what it was asked, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.readable_only = False  # the token may read and not write
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        parts = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{method} {'/'.join(parts)}")
        if method == "PUT" and parts[0] == "objects":
            self.server.objects[parts[1]] = body
            return self._json({})
        if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            return self._json({"error": "Invalid credentials in Authorization header"}, 401)
        if parts[:2] == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if method == "POST" and (self.server.readable_only or not self.headers.get("Authorization")):
            return self._json({"error": "you may not write"}, 403)
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:], body)
        if "info" in parts and parts[-1] == "batch":
            return self._batch(json.loads(body))
        if parts[2:3] == ["resolve"]:
            return self._file(method, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        self._missing("NotFound")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        exists = name in self.server.repositories
        if not exists:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.server.repositories[name] = Repository(private)
        self._json({"url": f"{self.server.address}/{name}", "name": name, "id": name}, 409 if exists else 200)

    def _api(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self._repository(name)
        if repository is None:
            return self._missing("RepoNotFound")
        what, revision = rest[:2] if rest else ("revision", "main")
        commit = repository.head if revision == "main" else revision
        if commit not in repository.commits:
            return self._missing("RevisionNotFound")
        if what == "revision":
            siblings = [{"rfilename": file} for file in repository.commits[commit]]
            return self._json(
                {"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
            )
        if what == "tree":
            return self._json([entry(file, data) for file, data in repository.commits[commit].items()])
        if what == "preupload":
            files = json.loads(body)["files"]
            modes = {f["path"]: "lfs" if f["path"].endswith(WEIGHTS) else "regular" for f in files}
            return self._json(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
            )
        assert what == "commit", what
        files = dict(repository.files)
        for line in body.splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files)
        self._json({"commitUrl": f"{self.server.address}/{name}/commit/{commit}", "commitOid": commit})

    def _repository(self, name: str) -> Repository | None:
        """Private ones are hidden from whoever brings no token, as there."""
        found = self.server.repositories.get(name)
        return None if found is not None and found.private and not self.headers.get("Authorization") else found

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.server.address}/objects/{o['oid']}"}}}
            for o in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _file(self, method: str, name: str, commit: str, file: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return self._missing("RepoNotFound")
        data = repository.commits[commit].get(file)
        if data is None:
            return self._missing("EntryNotFound")
        found = entry(file, data)
        self.send_response(200)
        self.send_header("ETag", f'"{found.get("lfs", found)["oid"]}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if method == "GET":
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self._json({"error": code}, 404, {"X-Error-Code": code})

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        kind = "application/vnd.git-lfs+json" if "info" in self.path else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def entry(file: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it: its git id, and where it is an LFS object, that object's SHA-256."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": file, "size": len(data), "oid": git}
    if file.endswith(WEIGHTS):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 128}
    return found
