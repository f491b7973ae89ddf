"""A Kubernetes API server as small as `kubectl drain` lets it be: nodes, pods, evictions, disruption budgets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.conftest import program

_VERBS = ["get", "list", "patch", "delete", "create"]
_CORE = [("nodes", "Node", False), ("pods", "Pod", True), ("pods/eviction", "Eviction", True)]


class Cluster:
    """What the server has. `kept` are pods that their budget does not let go; `log` is what was done, in order."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.budgets: list[dict[str, Any]] = []
        self.kept: set[str] = set()
        self.log: list[str] = []
        self.kubeconfig = Path()

    def add_node(self, name: str) -> None:
        self.nodes[name] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}}

    def add_pod(self, name: str, node: str, **labels: str) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": True}
        about = {"name": name, "namespace": "shop", "uid": name, "labels": labels, "ownerReferences": [owner]}
        status = {"phase": "Running"}
        self.pods[name] = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": {"nodeName": node}} | {
            "status": status
        }

    def add_budget(self, name: str, **labels: str) -> None:
        spec = {"minAvailable": 1, "selector": {"matchLabels": labels}}
        self.budgets.append({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})

    @property
    def kubectl(self) -> str:
        """kubectl's command, for this server."""
        return f"kubectl --kubeconfig {self.kubeconfig} --cache-dir {self.kubeconfig.parent / 'cache'}"

    def labels(self, key: str) -> dict[str, str]:
        labels = {name: node["metadata"].get("labels", {}) for name, node in self.nodes.items()}
        return {name: each[key] for name, each in labels.items() if key in each}

    def cordoned(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node["spec"].get("unschedulable")]

    # --- the API ---------------------------------------------------------------------------------------------------

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        match path.strip("/").split("/"):
            case ["version"]:
                return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
            case ["api"]:
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                version = {"groupVersion": "policy/v1", "version": "v1"}
                group = {"name": "policy", "versions": [version], "preferredVersion": version}
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
            case ["api", "v1"]:
                return 200, _resources("v1", _CORE)
            case ["apis", "policy", "v1"]:
                return 200, _resources("policy/v1", [("poddisruptionbudgets", "PodDisruptionBudget", True)])
            case ["api", "v1", "nodes"]:
                items = [*self.nodes.values()]
                return 200, {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items}
            case ["api", "v1", "nodes", name]:
                return (200, self.nodes[name]) if name in self.nodes else _no_node(name)
            case ["api", "v1", "pods"]:
                (selector,) = query.get("fieldSelector", [""])
                node = selector.rpartition("spec.nodeName=")[2]
                items = [pod for pod in self.pods.values() if pod["spec"]["nodeName"] == node]
                return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
            case ["api", "v1", "namespaces", "shop", "pods", name] if name in self.pods:
                return 200, self.pods[name]
            case ["apis", "policy", "v1", "namespaces", "shop", "poddisruptionbudgets"]:
                return 200, {"kind": "PodDisruptionBudgetList", "apiVersion": "policy/v1", "items": self.budgets}
        return _status(404, "NotFound", f"{path} not found")

    def patch(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = path.rpartition("/")[2]
        if name not in self.nodes:
            return _no_node(name)
        if labels := body.get("metadata", {}).get("labels"):
            has = self.nodes[name]["metadata"].get("labels", {}) | labels
            self.nodes[name]["metadata"]["labels"] = {key: value for key, value in has.items() if value is not None}
            self.log.append(f"label {name}")
            return 200, self.nodes[name]
        cordoned = bool(body["spec"].get("unschedulable"))
        self.nodes[name]["spec"] = {"unschedulable": True} if cordoned else {}
        self.log.append(f"{'cordon' if cordoned else 'uncordon'} {name}")
        return 200, self.nodes[name]

    def evict(self, path: str) -> tuple[int, dict[str, Any]]:
        name = path.split("/")[-2]
        if name in self.kept:
            said = "Cannot evict pod as it would violate the pod's disruption budget."
            return _status(429, "TooManyRequests", said)
        self.log.append(f"evict {name}")
        self.pods.pop(name, None)
        return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}


def _resources(version: str, kinds: list[tuple[str, str, bool]]) -> dict[str, Any]:
    resources = [
        {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": _VERBS}
        | ({"group": "policy", "version": "v1"} if kind == "Eviction" else {})
        for name, kind, namespaced in kinds
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _no_node(name: str) -> tuple[int, dict[str, Any]]:
    return _status(404, "NotFound", f'nodes "{name}" not found')


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason}
    return code, status | {"message": message, "code": code}


@contextmanager
def serve(home: Path) -> Iterator[Cluster]:
    """The server on a port of our own machine, and a kubeconfig for it in `home`."""
    cluster = Cluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._answer(*cluster.get(url.path, parse_qs(url.query)))

        def do_PATCH(self) -> None:
            self._answer(*cluster.patch(urlsplit(self.path).path, self._body()))

        def do_POST(self) -> None:
            self._body()
            self._answer(*cluster.evict(urlsplit(self.path).path))

        def _body(self) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            return found

        def _answer(self, code: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    cluster.kubeconfig = home / "kubeconfig.json"
    cluster.kubeconfig.write_text(json.dumps(config))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def with_pods(home: Path) -> Iterator[Cluster]:
    """A server with two nodes, a pod on each. Without a kubectl there is nothing to test."""
    program("kubectl")
    with serve(home) as made:
        for name in ("n1", "n2"):
            made.add_node(name)
            made.add_pod(f"web-{name}", name, app="web")
        yield made
