"""Serve as much of Kubernetes as one Dask cluster needs: objects are stored over HTTP, pods are local processes.

The functions of Dask's operator turn a DaskCluster into deployments and services. A pod gets the environment and the
arguments of its specification; the volumes that it mounts are folders of the test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dask_kubernetes.operator.controller import controller

BIN = Path(sys.executable).parent
NAMESPACE = "audiopipe"
READY = {
    "phase": "Running",
    "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")],
}
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: here, cluster: {{server: "{server}"}}}}]
contexts: [{{name: here, context: {{cluster: here, user: me, namespace: {namespace}}}}}]
users: [{{name: me, user: {{}}}}]
"""
Object = dict[str, Any]
ABOUT: dict[str, Object] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"versions": ["v1"]},
    "/api/v1": {
        "groupVersion": "v1",
        "resources": [{"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True}],
    },
    "/apis": {"groups": []},
}


class Kubernetes:
    """An API server with one node. `mounts` maps the mount paths of pods to local folders."""

    def __init__(self, folder: Path, mounts: dict[str, Path]) -> None:
        self.folder, self.mounts = folder, mounts
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: list[subprocess.Popen[bytes]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{self.server.server_port}"
        (folder / "kubeconfig").write_text(KUBECONFIG.format(server=address, namespace=NAMESPACE))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.stop()

    def stop(self) -> None:
        """Delete all objects and kill the pods."""
        self.objects.clear()
        for pod in self.pods:
            pod.kill()
            pod.wait()
        self.pods.clear()

    def operate(self, cluster: Object) -> None:
        """Do what the operator does for a new DaskCluster."""
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        scheduler = controller.build_scheduler_deployment_spec(name, spec["scheduler"]["spec"], {}, {})
        service = controller.build_scheduler_service_spec(name, spec["scheduler"]["service"], {}, {})
        self.store("services", service)
        self.start(scheduler)
        for number in range(spec["worker"]["replicas"]):
            arguments = (f"{name}-default", NAMESPACE, name, str(number), spec["worker"]["spec"], {}, {})
            self.start(controller.build_worker_deployment_spec(*arguments))
        cluster["status"] = {"phase": "Running"}

    def start(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        self.store("deployments", deployment)
        self.store("pods", {"kind": "Pod", "metadata": dict(template["metadata"]), "status": READY})
        (container,) = template["spec"]["containers"]
        variables = {variable["name"]: self._local_path(variable["value"]) for variable in container["env"]}
        reference = re.compile(r"\$\((\w+)\)")
        command = [reference.sub(lambda match: variables[match[1]], part) for part in container["args"]]
        with (self.folder / f"{template['metadata']['name']}.log").open("wb") as log:
            pod = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env={**os.environ, "TMPDIR": str(self.folder), **variables},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.pods.append(pod)

    def _local_path(self, value: str) -> str:
        for path, folder in self.mounts.items():
            value = value.replace(path, str(folder))
        return value

    def store(self, kind: str, item: Object) -> None:
        item["metadata"] |= {"namespace": NAMESPACE, "resourceVersion": "1", "generation": 1}
        self.objects[kind, item["metadata"]["name"]] = item

    def select(self, kind: str, query: dict[str, list[str]]) -> Object:
        """List the objects of a kind with these labels. Field selectors are ignored: every pod is running."""
        labels = [pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair]
        items = [
            item
            for (item_kind, _), item in self.objects.items()
            if item_kind == kind and all(item["metadata"].get("labels", {}).get(key) == value for key, value in labels)
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}

    def _handler(kubernetes) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request
        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, body: Object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def target(self) -> tuple[str, str, dict[str, list[str]]]:
                """Parse the kind, the name and the query of the request."""
                parts = urlsplit(self.path)
                _, _, rest = parts.path.partition(f"/namespaces/{NAMESPACE}/")
                kind, _, name = rest.partition("/")
                return kind, name, parse_qs(parts.query)

            def do_GET(self) -> None:
                kind, name, query = self.target()
                if about := ABOUT.get(self.path.rstrip("/")):
                    self.answer(200, about)
                elif not name:
                    self.answer(200, kubernetes.select(kind, query))
                elif item := kubernetes.objects.get((kind, name)):
                    self.answer(200, item)
                else:
                    self.answer(404, {"kind": "Status", "code": 404, "message": f"no {kind} {name}"})

            def do_POST(self) -> None:
                kind, _, _ = self.target()
                item = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                kubernetes.store(kind, item)
                kubernetes.operate(item)
                self.answer(201, item)

            def do_DELETE(self) -> None:
                kind, name, _ = self.target()
                deleted = kubernetes.objects[kind, name]
                kubernetes.stop()
                self.answer(200, deleted)

            def log_message(self, *_: Any) -> None:
                """Suppress the log."""

        return Handler
