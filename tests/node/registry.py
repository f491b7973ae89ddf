"""A registry of container images that only gives: `python -m tests.node.registry ADDRESS PORT LAYOUT.tar`.

It has the one image of an OCI layout, under every name and tag, and prints "ready" and then the path of each request.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex

from lab import Lab, network
from lab.paths import REPO
from tests.node.faults import wait_for

PORT = 5000
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextmanager
def serving(lab: Lab, image: bytes) -> Iterator[Path]:
    """Serve an image to the lab's nodes, at `url()`; the requests are in the file that this gives."""
    layout, log = (lab.home / f"registry-{token_hex(4)}{end}" for end in (".tar", ".log"))
    layout.write_bytes(image)
    process = lab.start([sys.executable, "-m", "tests.node.registry", network.CONTROLLER, str(PORT), layout], log, REPO)
    try:
        wait_for(lambda: process.poll() is not None or log.read_text().startswith("ready\n"), 60)
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        process.kill()
        process.wait()


def url() -> str:
    """Where the nodes find it."""
    return f"http://{network.CONTROLLER}:{PORT}"


def serve(address: str, port: int, layout: str) -> None:
    """Serve until killed."""
    with tarfile.open(layout) as tar:
        blobs = {
            f"sha256:{each.name.rpartition('/')[2]}": file.read()
            for each in tar
            if each.name.startswith("blobs/") and (file := tar.extractfile(each))
        }
        index = tar.extractfile("index.json")
        assert index
        manifest: str = json.load(index)["manifests"][0]["digest"]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, whole: bool) -> None:
            path = self.path.partition("?")[0]
            *_, kind, reference = path.split("/")
            digest = manifest if kind == "manifests" and ":" not in reference else reference
            print(path, flush=True)
            if digest not in blobs:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST if digest == manifest else "application/octet-stream")
            self.send_header("Content-Length", str(len(blobs[digest])))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if whole:
                self.wfile.write(blobs[digest])

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer((address, port), Handler)
    print("ready", flush=True)  # its port takes connections from here on
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
