"""A hub on loopback for tests: files by path, with ranges and validators as hubs have them, and faults to order."""
import hashlib
import http.server
import threading
import time


class Hub:
    """files: path -> bytes. faults: path -> list of functions of (handler, data), each of which answers one request in place of the
    hub; None lets it answer. requests: (path, headers) of each."""

    def __init__(self):
        self.files, self.faults, self.requests = {}, {}, []
        self.lock = threading.Lock()
        self.ranges = True
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.split("?")[0]
                with hub.lock:
                    hub.requests.append((self.path, dict(self.headers)))
                    queue = hub.faults.get(path, [])
                    fault = queue.pop(0) if queue else None
                try:
                    (fault or Handler.serve)(self, hub.files.get(path))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def serve(self, data):
                if data is None:
                    return self.answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
                etag = '"' + hashlib.md5(data).hexdigest() + '"'
                if self.headers.get("If-None-Match") == etag:
                    return self.answer(304, b"", {"ETag": etag})
                first = self.first(data, etag)
                if first is None:
                    return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                headers = {"ETag": etag, "Accept-Ranges": "bytes"}
                if first:
                    headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
                self.answer(206 if first else 200, data[first:], headers)

            def first(self, data, etag):
                """Where the range that is asked for begins; 0: all is sent; None: behind the end."""
                asked = self.headers.get("Range")
                if not asked or not hub.ranges or self.headers.get("If-Range", etag) != etag:
                    return 0
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                return first if first < len(data) else None

            def answer(self, status, body, headers, length=None):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda request, address: None  # a client that hangs up
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def asked(self, name):
        """A header of each request, in order."""
        return [headers.get(name) for _, headers in self.requests]


def status(code, **headers):
    return lambda handler, data: handler.answer(code, b"", {k.replace("_", "-"): str(v) for k, v in headers.items()})


def cut(n):
    """The first n bytes of what was asked for, and the end of the connection."""
    def fault(handler, data):
        etag = '"' + hashlib.md5(data).hexdigest() + '"'
        first = handler.first(data, etag)
        headers = {"ETag": etag}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        handler.answer(206 if first else 200, data[first:first + n], headers, length=len(data) - first)
        handler.close_connection = True
    return fault


def redirect(location, code=302, **headers):
    return lambda handler, data: handler.answer(code, b"moved", {"Location": location, **{k.replace("_", "-"): v for k, v in headers.items()}})


def slowly(chunk, pause, first=None):
    """All of it, a chunk at a time; stands still for ever behind `first` chunks."""
    def fault(handler, data):
        etag = '"' + hashlib.md5(data).hexdigest() + '"'
        begin = handler.first(data, etag) or 0
        headers = {"ETag": etag}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        handler.answer(206 if begin else 200, b"", headers, length=len(data) - begin)
        for i, at in enumerate(range(begin, len(data), chunk)):
            if i == first:
                time.sleep(60)
            handler.wfile.write(data[at:at + chunk])
            handler.wfile.flush()
            time.sleep(pause)
    return fault
