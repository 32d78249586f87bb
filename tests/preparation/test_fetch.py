"""Detectors by name, against a server on this machine: the right file, a wrong one, one cut off, and no network."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from drawn_detector import save_detector
from facedistill.errors import UserError
from facedistill.preparation import Detector
from facedistill.preparation.fetch import DETECTORS, Published, detector_file


class _Server(HTTPServer):
    content, status, asked = b"", 200, 0


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.asked += 1
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    content = save_detector(tmp_path / "d.onnx").read_bytes()
    http = _Server(("127.0.0.1", 0), _Handler)
    http.content = content
    address = f"http://127.0.0.1:{http.server_address[1]}/d.onnx"
    known = Published(address, hashlib.sha256(content).hexdigest(), len(content), "MIT")
    monkeypatch.setitem(DETECTORS, "yunet", known)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def test_it_is_fetched_once_and_kept(server: _Server, capsys: pytest.CaptureFixture[str]) -> None:
    file = detector_file("yunet")
    assert "licence: MIT" in capsys.readouterr().err
    Detector(file)
    assert detector_file("yunet") == file and server.asked == 1
    file.write_bytes(b"damaged")
    assert detector_file("yunet").read_bytes() == server.content and server.asked == 2


def test_what_is_not_the_file(server: _Server, tmp_path: Path) -> None:
    right = server.content
    for content, status, message in (
        (right[:-1] + b"x", 200, "another SHA-256"),
        (right + b"more", 200, "another SHA-256"),
        (right[:100], 200, "cut off after 100 of"),
        (right, 404, "the server says 404"),
    ):
        server.content, server.status = content, status
        with pytest.raises(UserError, match=message):
            detector_file("yunet")
        assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_no_network(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "yunet", DETECTORS["yunet"]._replace(address="http://127.0.0.1:9/d.onnx"))
    with pytest.raises(UserError, match=r"cannot fetch http.*Connection refused.*name it with --detector FILE"):
        detector_file("yunet")


def test_the_published_file_is_pinned() -> None:
    known = DETECTORS["yunet"]
    assert known.address.startswith("https://") and len(known.sha256) == 64 and "MIT" in known.licence
