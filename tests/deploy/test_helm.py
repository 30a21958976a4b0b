"""The Helm chart, by Helm itself, and what of it is not Kubernetes' own, by the operator's schemas.

Go brings both where it is installed; see `.ci/run`.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.test_kubernetes import CORE, KUBERNETES, MANIFESTS, VERSION, documents

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "tensor-wasm"
GENERATE = runpy.run_path(str(ROOT / "deploy" / "generate.py"))
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("go") or shutil.which("helm") or (Path(sys.executable).parent / "helm").exists()),
        reason="there is neither helm nor go, which could build it",
    ),
]


@pytest.fixture(scope="module")
def helm() -> str:
    beside = Path(sys.executable).parent
    found = shutil.which("helm", path=f"{beside}:{os.environ['PATH']}")
    assert found, f"no helm: GOBIN={beside} go install helm.sh/helm/v3/cmd/helm@v3.19.0"
    return found


def rendered(helm: str, *arguments: str) -> dict[str, dict]:
    text = GENERATE["rendered"](helm, *arguments)
    found = [document for document in yaml.safe_load_all(text) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def without_helm_s_labels(value):
    ours = ("helm.sh/chart", "app.kubernetes.io/managed-by")
    if isinstance(value, dict):
        return {key: without_helm_s_labels(item) for key, item in value.items() if key not in ours}
    return [without_helm_s_labels(item) for item in value] if isinstance(value, list) else value


def test_helm_finds_nothing_wrong(helm):
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_plain_manifests_are_the_chart_s(helm):
    chart = without_helm_s_labels(rendered(helm))
    plain = {name: manifest for name, manifest in MANIFESTS.items() if manifest["kind"] != "Secret"}
    version = "app.kubernetes.io/version"
    chart["PrometheusRule/tensor-wasm"]["metadata"]["labels"].pop(version)
    assert chart == plain, "run `python deploy/generate.py HELM`"
    for path, text in GENERATE["manifests"](helm):
        assert path.read_text() == text


VALUES = {
    "as it comes": {},
    "with a GPU": {"gpu": {"count": 1, "runtimeClassName": "nvidia"}},
    "several, alone and elsewhere": {
        "nodes": 3,
        "networkPolicy": {"enabled": True, "clients": [], "monitoring": [], "egress": [{"ports": [{"port": 4318}]}]},
        "storage": {"size": "1Ti", "storageClassName": "fast", "accessModes": ["ReadWriteOncePod"]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "monitoring"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "monitoring"}},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
    },
    "without what is optional": {
        "networkPolicy": {"enabled": False},
        "serviceMonitor": {"enabled": False},
        "prometheusRule": {"enabled": False},
    },
}


@pytest.mark.parametrize("values", list(VALUES))
def test_kubernetes_takes_what_the_chart_makes(helm, values, tmp_path, definitions):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(VALUES[values]))
    made = rendered(helm, "--values", str(file))
    for manifest in made.values():
        if manifest["apiVersion"] in CORE:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        else:
            definitions[manifest["kind"]].validate(manifest)
    if values == "with a GPU":
        pod = made["StatefulSet/tensor-wasm"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert pod["runtimeClassName"] == "nvidia"
        (endpoint,) = made["ServiceMonitor/tensor-wasm"]["spec"]["endpoints"]
        assert {"targetLabel": "deployment", "replacement": "cuda"} in endpoint["relabelings"]
    if values.startswith("several"):
        assert made["NetworkPolicy/tensor-wasm"]["spec"]["ingress"] == []  # nobody, and not everybody
    if values.startswith("without"):
        assert not {"NetworkPolicy", "ServiceMonitor", "PrometheusRule"} & {name.split("/")[0] for name in made}


@pytest.mark.parametrize(
    "values",
    [
        {"nodes": -1},
        {"settings": {"TENSOR_WASM_HOME": "/elsewhere"}},
        {"settings": {"TENSOR_WASM_API_TOKENS": "in-a-config-map:role=admin"}},
        {"settings": {"TENSOR_WASM_WORKERS": 8}},
        {"storage": {"size": "much", "accessModes": ["ReadWriteOnce"]}},
        {"storage": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}},
        {"no_such_value": 1},
    ],
)
def test_values_that_cannot_be_are_refused(helm, values, tmp_path):
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    command = [helm, "template", "x", str(CHART), "--kube-version", GENERATE["KUBERNETES"], "--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "values don't meet the specifications" in done.stderr


def test_the_names_follow_the_release_s(helm):
    command = [helm, "template", "blue", str(CHART), "--kube-version", GENERATE["KUBERNETES"], "--namespace", "wasm"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {document["metadata"]["name"] for document in yaml.safe_load_all(text) if document}
    assert names == {"blue-tensor-wasm", "blue-tensor-wasm-nodes"}


@pytest.fixture(scope="module")
def definitions() -> dict[str, jsonschema.Draft202012Validator]:
    """The Prometheus operator's own schemas of what it reads, by kind; unknown fields are refused."""
    go = shutil.which("go")
    assert go, "no go, which fetches the Prometheus operator's schemas"
    done = subprocess.run(
        [go, "mod", "download", "-json", OPERATOR], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    found = {}
    for kind in ("ServiceMonitor", "PrometheusRule"):
        (definition,) = documents(folder / f"monitoring.coreos.com_{kind.lower()}s.yaml")
        (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
        found[kind] = jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))
    return found


def closed(schema):
    """A structural schema that refuses what it does not name; the object's own metadata are Kubernetes'."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    return result


def test_the_operator_takes_the_plain_manifests(definitions):
    for kind, definition in definitions.items():
        definition.validate(MANIFESTS[f"{kind}/tensor-wasm"])
    assert KUBERNETES.is_dir()
    wrong = json.loads(json.dumps(MANIFESTS["ServiceMonitor/tensor-wasm"]))
    wrong["spec"]["endpoints"][0]["intervall"] = "1s"
    with pytest.raises(jsonschema.ValidationError):
        definitions["ServiceMonitor"].validate(wrong)
