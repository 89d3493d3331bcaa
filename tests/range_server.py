"""A web server for tests: parts of files, late, with failures and an end, as asked.

Like an object store it knows HTTP/1.1 with connections that are kept, HEAD and single ranges, and
lists no folders.
"""

import io
import re
import socket
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Serves the files of a folder while it is open.

    Args:
        folder: whose files have URLs.
        delay: seconds that every answer takes longer.
        fail_every: the failing requests, 20 for every 20th.
        failure: "503" or "reset" (of the connection).
        die_after_bytes: sent, after which every request is reset, until this is None.
        hang_every: the requests that are never answered, 20 for every 20th.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        folder,
        *,
        delay=0.0,
        fail_every=None,
        failure="503",
        die_after_bytes=None,
        hang_every=None,
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.delay = Path(folder), delay
        self.fail_every, self.failure, self.die_after_bytes = fail_every, failure, die_after_bytes
        self.hang_every, self.closed = hang_every, threading.Event()
        self.lock = threading.Lock()
        self.log = []  # (method, name, first byte or None, bytes sent, status)
        self.count = 0

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.closed.set()
        self.shutdown()
        self.server_close()

    def url(self, name):
        """Return where a file of the folder is."""
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def sent(self, name):
        """Return the bytes of a file that were sent, one sent twice counted twice."""
        return sum(size for _, called, _, size, _ in self.log if called == name)

    def is_dead(self):
        sent = sum(size for *_, size, _ in self.log)
        return self.die_after_bytes is not None and sent > self.die_after_bytes

    def statuses(self):
        """Return how many requests were answered how."""
        return Counter(status for *_, status in self.log)

    def handle_error(self, request, client_address):
        """Clients may hang up."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_HEAD(self):
        self.answer(is_head=True)

    def do_GET(self):
        self.answer()

    def answer(self, is_head=False):
        server, name = self.server, self.path.lstrip("/")
        with server.lock:
            server.count += 1
            count = server.count
        if server.is_dead():
            return self.reset(name)
        if server.hang_every and count % server.hang_every == 0:
            server.log.append((self.command, name, None, 0, "hung"))
            server.closed.wait()
            return self.reset(name)
        if server.delay:
            time.sleep(server.delay)
        if server.fail_every and count % server.fail_every == 0:
            if server.failure == "reset":
                return self.reset(name)
            return self.reply(503, name, b"")
        path = server.folder / name
        if not path.is_file():
            return self.reply(404, name, b"")
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.reply(200, name, path.read_bytes(), is_head=is_head)
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        if first > last:
            return self.reply(416, name, b"")
        with path.open("rb") as file:
            file.seek(first)
            part = file.read(last - first + 1)
        where = {"Content-Range": f"bytes {first}-{last}/{size}"}
        self.reply(206, name, part, where, first=first, is_head=is_head)

    def reply(self, status, name, content, headers=(), *, first=None, is_head=False):
        sent = 0 if is_head else len(content)
        self.server.log.append((self.command, name, first, sent, status))
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        if status in (200, 206):
            changed = (self.server.folder / name).stat().st_mtime
            self.send_header("Last-Modified", formatdate(changed, usegmt=True))
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not is_head:
            self.wfile.write(content)
        self.wfile.flush()

    def reset(self, name):
        """Break the connection off, so that the client sees a reset."""
        self.server.log.append((self.command, name, None, 0, "reset"))
        now = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.connection.close()
        self.close_connection = True
        self.wfile = io.BytesIO()

    def log_message(self, *args):
        pass
