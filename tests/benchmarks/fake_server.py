# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A small HTTP server that answers as ``max serve`` does, with as many words as it is asked for.

Its options are those of ``max serve``: ``--port`` says where it listens, the others are ignored.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STARTUP = (
    "Model worker startup total: 23.5s — spawn: 15.7s, driver: 0.8s, compile: 1.2s "
    "[unaccounted: 0.0s], init: 2.1s [unaccounted: 0.0s], other: 3.4s, warmup: 0.4s"
)


class Handler(BaseHTTPRequestHandler):
    """Streams a completion, and keeps every request in the server's ``asked``."""

    server: FakeServer

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""

    def do_GET(self) -> None:
        """Answer to /health, and to what else a client looks for."""
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Stream a completion's chunks, then its usage."""
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path != "/v1/completions":
            self.send_error(404)
            return
        request = json.loads(content)
        self.server.asked.append(request)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        tokens = request["max_tokens"]
        for token in range(tokens):
            self._send({"choices": [{"index": 0, "text": f" word{token}"}]})
        usage = {"prompt_tokens": len(request["prompt"]), "completion_tokens": tokens}
        self._send({"choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()


class FakeServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.asked: list[dict[str, Any]] = []


def main(arguments: list[str]) -> None:
    """Serve until the process is terminated."""
    server = FakeServer(int(arguments[arguments.index("--port") + 1]))
    print(STARTUP, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv)
