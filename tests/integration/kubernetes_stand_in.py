"""Kubernetes as far as one Dask cluster goes: objects are kept over HTTP, and pods are processes of this machine.

What Dask's operator would answer to a DaskCluster it makes itself, by its own functions. A pod gets the environment and
the arguments that its specification has, and finds what the specification mounts in a folder of the test's.
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
    """An API server and its one node. `mounts` are the folders in the place of what pods mount."""

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
        """What a deleted cluster takes with it; its pods get no time to end."""
        self.objects.clear()
        for pod in self.pods:
            pod.kill()
            pod.wait()
        self.pods.clear()

    def operate(self, cluster: Object) -> None:
        """What the operator makes of a DaskCluster."""
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        scheduler = controller.build_scheduler_deployment_spec(name, spec["scheduler"]["spec"], {}, {})
        service = controller.build_scheduler_service_spec(name, spec["scheduler"]["service"], {}, {})
        self.keep("services", service)
        self.start(scheduler)
        for number in range(spec["worker"]["replicas"]):
            told = (f"{name}-default", NAMESPACE, name, str(number), spec["worker"]["spec"], {}, {})
            self.start(controller.build_worker_deployment_spec(*told))
        cluster["status"] = {"phase": "Running"}

    def start(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        self.keep("deployments", deployment)
        self.keep("pods", {"kind": "Pod", "metadata": dict(template["metadata"]), "status": READY})
        (container,) = template["spec"]["containers"]
        variables = {variable["name"]: self._here(variable["value"]) for variable in container["env"]}
        named = re.compile(r"\$\((\w+)\)")
        told = [named.sub(lambda found: variables[found[1]], word) for word in container["args"]]
        with (self.folder / f"{template['metadata']['name']}.log").open("wb") as log:
            pod = subprocess.Popen(
                [str(BIN / told[0]), *told[1:]],
                env={**os.environ, "TMPDIR": str(self.folder), **variables},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.pods.append(pod)

    def _here(self, value: str) -> str:
        for path, folder in self.mounts.items():
            value = value.replace(path, str(folder))
        return value

    def keep(self, kind: str, made: Object) -> None:
        made["metadata"] |= {"namespace": NAMESPACE, "resourceVersion": "1", "generation": 1}
        self.objects[kind, made["metadata"]["name"]] = made

    def found(self, kind: str, query: dict[str, list[str]]) -> Object:
        """All of a kind with these labels. Clients look themselves for a name, and every pod is running."""
        labels = [pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair]
        items = [
            one
            for (of, _), one in self.objects.items()
            if of == kind and all(one["metadata"].get("labels", {}).get(key) == value for key, value in labels)
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}

    def _handler(here) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request
        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, body: Object) -> None:
                told = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def asked(self) -> tuple[str, str, dict[str, list[str]]]:
                """Kind, name, query."""
                parts = urlsplit(self.path)
                _, _, rest = parts.path.partition(f"/namespaces/{NAMESPACE}/")
                kind, _, name = rest.partition("/")
                return kind, name, parse_qs(parts.query)

            def do_GET(self) -> None:
                kind, name, query = self.asked()
                if about := ABOUT.get(self.path.rstrip("/")):
                    self.answer(200, about)
                elif not name:
                    self.answer(200, here.found(kind, query))
                elif one := here.objects.get((kind, name)):
                    self.answer(200, one)
                else:
                    self.answer(404, {"kind": "Status", "code": 404, "message": f"no {kind} {name}"})

            def do_POST(self) -> None:
                kind, _, _ = self.asked()
                made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                here.keep(kind, made)
                here.operate(made)
                self.answer(201, made)

            def do_DELETE(self) -> None:
                kind, name, _ = self.asked()
                gone = here.objects[kind, name]
                here.stop()
                self.answer(200, gone)

            def log_message(self, *_: Any) -> None:
                """Nothing on the test's terminal."""

        return Handler
