"""An HTTP server on this machine, for tests of downloads."""

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`. `cuts`: after how many bytes the next answers break off. Without `ranges` it ignores Range.

    `pause`: seconds after each 16 KB. `requests` holds the Range header of each request, `paths` what was requested.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges, self.pause = True, 0.0
        self.requests: list[str | None] = []
        self.paths: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content, wanted = self.server.files.get(self.path[1:]), self.headers.get("Range")
        self.server.requests.append(wanted)
        self.server.paths.append(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.server.cuts.pop(0) if self.server.cuts else len(content)
        with contextlib.suppress(ConnectionError):  # a client that was killed
            self.send_slowly(content[start : start + end])

    def send_slowly(self, content: bytes) -> None:
        step = 1 << 14 if self.server.pause else max(1, len(content))
        for place in range(0, len(content), step):
            self.wfile.write(content[place : place + step])
            time.sleep(self.server.pause)

    def log_message(self, *_arguments):
        pass


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
