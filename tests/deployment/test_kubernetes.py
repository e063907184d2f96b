"""The Kubernetes manifests against Kubernetes' own schemas, in strict form, and the Dask operator's own definitions."""

import copy
import importlib.resources
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask.config
import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from audiopipe.cluster.connect import TLS_FILES
from audiopipe.cluster.engines import CONTAINER_UID, engine_arguments
from audiopipe.cluster.profiles import resolve_profile
from audiopipe.errors import ConfigError

MANIFESTS = Path(__file__).parents[2] / "cluster/kubernetes"
# From the first version in which backoffLimitPerIndex and FailIndex of a Job are stable, to the newest.
VERSIONS = [version for version in kubernetes_validate.utils.all_versions() if int(version.split(".")[1]) >= 33]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def retrieve(uri: str) -> "Resource[Any]":
    """Resolve a reference of the operator's schema: to its package, or to the newest schema of Kubernetes."""
    parts = urlsplit(uri)
    if parts.netloc == "k8s_crd_resolver":
        folder = f"kubernetes-json-schema/v{VERSIONS[-1]}-local-strict"
        text = (importlib.resources.files("kubernetes_validate") / folder / "_definitions.json").read_text()
        schemas = json.loads(text)
        return Resource.from_contents(schemas | {"definitions": schemas["$defs"]}, DRAFT202012)
    text = (importlib.resources.files(parts.netloc) / parts.path.lstrip("/")).read_text()
    return Resource.from_contents(yaml.safe_load(text), DRAFT202012)


@pytest.fixture(scope="module")
def dask_cluster() -> Draft202012Validator:
    package = importlib.resources.files("dask_kubernetes.operator.customresources")
    (version,) = yaml.safe_load((package / "daskcluster.yaml").read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    return Draft202012Validator(schema, registry=Registry(retrieve=retrieve))  # type: ignore[call-arg]


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize("name", ["partitions.yaml", "network-policy.yaml"])
def test_kubernetes_knows_every_field_of_the_manifests(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_check_detects_a_field_unknown_to_kubernetes() -> None:
    (job,) = documents("partitions.yaml")
    job["spec"]["backoffLimitPerindex"] = job["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(kubernetes_validate.ValidationError, match="backoffLimitPerindex"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_the_operator_knows_every_field_of_the_manifest(dask_cluster: Draft202012Validator) -> None:
    (manifest,) = documents("dask-cluster.yaml")
    dask_cluster.validate(manifest)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec", "worker", "spec", "containers", 0), "enVFrom", []),
        (("spec", "scheduler", "service", "ports", 0), "port", "8786"),
        (("spec",), "idleTimeout", "1 hour"),
    ],
)
def test_the_check_detects_what_the_operator_would_refuse(
    dask_cluster: Draft202012Validator, path: tuple[Any, ...], key: str, value: Any
) -> None:
    (manifest,) = copy.deepcopy(documents("dask-cluster.yaml"))
    parent: Any = manifest
    for step in path:
        parent = parent[step]
    parent[key] = value
    with pytest.raises(ValidationError):
        dask_cluster.validate(manifest)


def container(role: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the container of a pod that the operator creates from a DaskCluster."""
    from dask_kubernetes.operator.controller.controller import (
        build_scheduler_deployment_spec,
        build_worker_deployment_spec,
    )

    if role == "scheduler":
        deployment = build_scheduler_deployment_spec("audiopipe", spec["scheduler"]["spec"], {}, {})
    else:
        arguments = ("audiopipe-default", "audiopipe", "audiopipe", "w-1", spec["worker"]["spec"], {}, {})
        deployment = build_worker_deployment_spec(*arguments)
    (result,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(result)


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_pods_mount_readable_certificates_from_the_secret(role: str) -> None:
    (manifest,) = documents("dask-cluster.yaml")
    pod, main = manifest["spec"][role]["spec"], container(role, manifest["spec"])
    assert variables(main)["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    (folder,) = [mount["mountPath"] for mount in main["volumeMounts"] if mount["name"] == "tls"]
    paths = {value for name, value in variables(main).items() if "__TLS__" in name}
    assert paths == {f"{folder}/{name}" for name in TLS_FILES}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tls"]
    assert volume["secret"] == {"secretName": "audiopipe-tls", "defaultMode": 0o440}
    assert pod["securityContext"]["fsGroup"] == CONTAINER_UID


def test_a_worker_gets_only_the_schedulers_encrypted_address() -> None:
    (manifest,) = documents("dask-cluster.yaml")
    addresses = [entry["value"] for entry in container("worker", manifest["spec"])["env"] if "ADDRESS" in entry["name"]]
    assert addresses == ["tls://audiopipe-scheduler:8786"]


def test_the_scheduler_keeps_dasks_http_routes_for_the_operator() -> None:
    (manifest,) = documents("dask-cluster.yaml")
    routes = json.loads(
        variables(container("scheduler", manifest["spec"]))["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"]
    )
    default = dask.config.get("distributed.scheduler.http.routes")
    assert set(routes) == {*default, "distributed.http.scheduler.api"}


def cluster_spec(manifest: str, **options: Any) -> dict[str, Any]:
    """Return the specification of the cluster that the profile `kubernetes` creates."""
    engine = engine_arguments(resolve_profile("kubernetes", manifest=manifest, **options))
    return engine.arguments["custom_cluster_spec"]["spec"]  # type: ignore[index]


def test_on_a_private_network_encryption_can_be_switched_off() -> None:
    manifest = str(MANIFESTS / "dask-cluster.yaml")
    spec = cluster_spec(manifest, tls=False)
    assert "tls" not in json.dumps(spec)
    environment = variables(container("worker", spec))
    assert environment["DASK_SCHEDULER_ADDRESS"] == "tcp://audiopipe-scheduler.audiopipe.svc.cluster.local:8786"
    assert "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES" in variables(container("scheduler", spec))


def test_an_unencrypted_manifest_needs_an_explicit_setting(tmp_path: Path) -> None:
    (manifest,) = documents("dask-cluster.yaml")
    for role in ("scheduler", "worker"):
        del manifest["spec"][role]["spec"]["containers"][0]["env"], manifest["spec"][role]["spec"]["volumes"]
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    manifest = str(tmp_path / "manifest.yaml")
    with pytest.raises(ConfigError, match=r"the workers of .*manifest\.yaml do not encrypt: .* set tls: false"):
        cluster_spec(manifest)
    assert cluster_spec(manifest, tls=False)


def test_only_the_namespace_and_the_operator_reach_the_pods() -> None:
    (policy,) = documents("network-policy.yaml")
    assert policy["metadata"]["namespace"] == "audiopipe"
    assert policy["spec"]["podSelector"] == {}, "all pods"
    (rule,) = policy["spec"]["ingress"]
    assert {next(iter(peer)) for peer in rule["from"]} == {"podSelector", "namespaceSelector"}
