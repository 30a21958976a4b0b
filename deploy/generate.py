"""What is made from something else below ``deploy/``; tests compare each with its source.

``python deploy/generate.py`` copies the rules for Prometheus to where Kubernetes and Helm want them. With the path of a
``helm`` as its argument it also writes the plain manifests of Kubernetes: the chart, as its default values render it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent
RULES = ("recording.yml", "alerts.yml")
#: Which Kubernetes the chart is rendered for: what a helm that was built from source takes for it is too old.
KUBERNETES = "1.34.0"
_HEADER = "# Made from deploy/prometheus/ by `python deploy/generate.py`.\n"
_PLAIN_HEADER = "# Made from deploy/helm/tensor-wasm by `python deploy/generate.py HELM`.\n"
#: Labels of what Helm manages, and the lines that say where a document comes from.
_HELM_S = re.compile(r"^ +(?:helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def prometheus_rule() -> dict[str, Any]:
    """The PrometheusRule that has all groups."""
    documents = [yaml.safe_load((DEPLOY / "prometheus" / name).read_text("utf-8")) for name in RULES]
    labels = {"app.kubernetes.io/name": "tensor-wasm", "app.kubernetes.io/instance": "tensor-wasm"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tensor-wasm", "labels": labels},
        "spec": {"groups": [group for document in documents for group in document["groups"]]},
    }


def rendered(helm: str, *arguments: str) -> str:
    """The chart as Helm renders it, with more arguments for it."""
    command = [helm, "template", "tensor-wasm", str(DEPLOY / "helm" / "tensor-wasm"), "--kube-version", KUBERNETES]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


def manifests(helm: str) -> Iterator[tuple[Path, str]]:
    """The plain manifests, a file a template."""
    texts: dict[str, list[str]] = {}
    for document in re.split(r"^---\n", rendered(helm), flags=re.MULTILINE):
        source = re.search(r"^# Source: tensor-wasm/templates/(.*)$", document, re.MULTILINE)
        if source is not None and source[1] != "prometheusrule.yaml":
            texts.setdefault(source[1], []).append(_HELM_S.sub("", document).strip() + "\n")
    for name, documents in texts.items():
        yield DEPLOY / "kubernetes" / name, _PLAIN_HEADER + "---\n".join(documents)


def files() -> Iterator[tuple[Path, str]]:
    """Each file that is made, and its text."""
    for name in RULES:
        text = (DEPLOY / "prometheus" / name).read_text("utf-8")
        yield DEPLOY / "helm" / "tensor-wasm" / "rules" / name, _HEADER + text
    body = yaml.dump(prometheus_rule(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    yield DEPLOY / "kubernetes" / "prometheusrule.yaml", _HEADER + body


def main(helm: str | None = None) -> int:
    """Write them."""
    for path, text in [*files(), *(manifests(helm) if helm else ())]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
