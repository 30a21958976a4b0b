"""The plain manifests: Kubernetes' own schemas, what its restricted profile asks for, and settings that there are."""

import runpy
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tensor_wasm.config import load

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
CORE = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


MANIFESTS = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in documents(path)
}
NODES = MANIFESTS["StatefulSet/tensor-wasm"]["spec"]
POD = NODES["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("name", [name for name, manifest in MANIFESTS.items() if manifest["apiVersion"] in CORE])
def test_kubernetes_takes_it(name):
    kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)


def test_what_is_made_from_the_rules_is_up_to_date():
    made = dict(runpy.run_path(str(ROOT / "deploy" / "generate.py"))["files"]())
    assert len(made) == 3
    for path, text in made.items():
        assert path.read_text() == text, f"{path.name}: run `python deploy/generate.py`"


def test_all_that_is_there_is_applied():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == there
    (image,) = kustomization["images"]
    assert CONTAINER["image"] == f"{image['name']}:{image['newTag']}"


def test_the_pod_is_of_the_restricted_profile():
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert {volume["name"] for volume in POD["volumes"]} <= {"tmp"}
    container_file = (ROOT / "deploy" / "container" / "Containerfile").read_text()
    user = POD["securityContext"]["runAsUser"]
    assert f"USER {user}:{POD['securityContext']['runAsGroup']}" in container_file


def test_settings_are_ones_that_there_are():
    settings = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    settings |= MANIFESTS["ConfigMap/tensor-wasm"]["data"] | MANIFESTS["Secret/tensor-wasm-tokens"]["stringData"]
    loaded = load(settings)
    assert loaded.warnings == ()
    assert str(loaded.config.home).startswith(CONTAINER["volumeMounts"][0]["mountPath"] + "/")
    pause_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= loaded.config.drain_s + pause_s + 10
    assert POD["enableServiceLinks"] is False  # TENSOR_WASM_PORT and others would come from the service's name


def test_what_is_referred_to_is_there():
    assert CONTAINER["envFrom"] == [
        {"configMapRef": {"name": "tensor-wasm"}},
        {"secretRef": {"name": "tensor-wasm-tokens"}},
    ]
    assert f"Service/{NODES['serviceName']}" in MANIFESTS
    labels = NODES["template"]["metadata"]["labels"]
    (port,) = CONTAINER["ports"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["name"]
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/readyz"
    selectors = [MANIFESTS[f"Service/{name}"]["spec"]["selector"] for name in ("tensor-wasm", "tensor-wasm-nodes")]
    selectors.append(MANIFESTS["PodDisruptionBudget/tensor-wasm"]["spec"]["selector"]["matchLabels"])
    selectors.append(MANIFESTS["NetworkPolicy/tensor-wasm"]["spec"]["podSelector"]["matchLabels"])
    selectors.append(NODES["selector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitor = MANIFESTS["ServiceMonitor/tensor-wasm"]["spec"]
    scraped = MANIFESTS["Service/tensor-wasm"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= scraped.items()
    assert (
        not monitor["selector"]["matchLabels"].items()
        <= MANIFESTS["Service/tensor-wasm-nodes"]["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["key"] in MANIFESTS[f"Secret/{credentials['name']}"]["stringData"]


def test_nodes_are_told_apart_as_the_rules_want_it():
    (endpoint,) = MANIFESTS["ServiceMonitor/tensor-wasm"]["spec"]["endpoints"]
    relabelled = {row["targetLabel"]: row["replacement"] for row in endpoint["relabelings"]}
    assert relabelled == {"deployment": "host", "job": "tensor-wasm"}
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["job_name"] == relabelled["job"]
    assert scrape["static_configs"][0]["labels"]["deployment"] == relabelled["deployment"]
