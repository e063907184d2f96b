"""The Kubernetes manifests against Kubernetes' own schemas, in strict form, and the Dask operator's own definitions."""

import copy
import importlib.resources
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

MANIFESTS = Path(__file__).parents[2] / "cluster/kubernetes"
# From the first in which a Job knows backoffLimitPerIndex and FailIndex for good to the newest.
VERSIONS = [version for version in kubernetes_validate.utils.all_versions() if int(version.split(".")[1]) >= 33]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def retrieve(uri: str) -> "Resource[Any]":
    """The operator's definitions lie in its package; its build takes Kubernetes' from elsewhere, we the newest."""
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
def test_kubernetes_knows_every_field_of_ours(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_check_sees_a_field_that_kubernetes_does_not_know() -> None:
    (job,) = documents("partitions.yaml")
    job["spec"]["backoffLimitPerindex"] = job["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(kubernetes_validate.ValidationError, match="backoffLimitPerindex"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_the_operator_knows_every_field_of_our_cluster(dask_cluster: Draft202012Validator) -> None:
    (ours,) = documents("dask-cluster.yaml")
    dask_cluster.validate(ours)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec", "worker", "spec", "containers", 0), "enVFrom", []),
        (("spec", "scheduler", "service", "ports", 0), "port", "8786"),
        (("spec",), "idleTimeout", "1 hour"),
    ],
)
def test_the_check_sees_what_the_operator_would_refuse(
    dask_cluster: Draft202012Validator, path: tuple[Any, ...], key: str, value: Any
) -> None:
    (ours,) = copy.deepcopy(documents("dask-cluster.yaml"))
    place: Any = ours
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(ValidationError):
        dask_cluster.validate(ours)


def test_the_operator_speaks_plain_tcp_whatever_we_ask_which_is_why_there_is_a_network_policy() -> None:
    """If this fails the operator has learnt TLS: mount the certificates, and switch `tls` on in the profile."""
    from dask_kubernetes.operator.controller.controller import build_worker_deployment_spec

    (ours,) = documents("dask-cluster.yaml")
    spec = ours["spec"]["worker"]["spec"]
    spec["containers"][0]["env"] = [{"name": "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "value": "true"}]
    built = build_worker_deployment_spec("default", "audiopipe", "audiopipe", "w-1", spec, {}, {})
    (container,) = built["spec"]["template"]["spec"]["containers"]
    (address,) = [entry["value"] for entry in container["env"] if entry["name"] == "DASK_SCHEDULER_ADDRESS"]
    assert address.startswith("tcp://audiopipe-scheduler.audiopipe.")


def test_only_the_namespace_and_the_operator_reach_our_pods() -> None:
    (policy,) = documents("network-policy.yaml")
    assert policy["metadata"]["namespace"] == "audiopipe"
    assert policy["spec"]["podSelector"] == {}, "all pods"
    (rule,) = policy["spec"]["ingress"]
    assert {next(iter(peer)) for peer in rule["from"]} == {"podSelector", "namespaceSelector"}
