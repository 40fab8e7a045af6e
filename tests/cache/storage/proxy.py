"""A proxy of the S3 server that changes requests, like servers with partial support of S3."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Refuse = Callable[[str, dict[str, str]], int | None]
NOT_FORWARDED = {"connection", "content-length", "date", "server", "transfer-encoding"}


@contextmanager
def running_proxy(
    endpoint: str, *, without: tuple[str, ...] = (), refuse: Refuse = lambda method, headers: None
) -> Iterator[str]:
    """Run a proxy of another endpoint, and yield its endpoint.

    Args:
        without: headers that it drops.
        refuse: returns the status with which it refuses a request, or None.
    """
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if (status := refuse(self.command, headers)) is not None:
                self._answer(status, {}, b"<Error><Code>NotImplemented</Code></Error>")
                return
            connection = http.client.HTTPConnection(target)
            kept = {
                name: value
                for name, value in headers.items()
                if name not in (*without, "connection")
            }
            connection.request(self.command, self.path, body, kept)
            answer = connection.getresponse()
            content = answer.read()
            self._answer(answer.status, dict(answer.getheaders()), content)
            connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            for name, value in headers.items():
                if name.lower() not in NOT_FORWARDED:
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
