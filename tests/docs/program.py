"""What the program has that a page may name: metrics, routes, settings, commands, spans, alerts, panels, fields."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import re
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tensor_wasm.config import CLIENT_VARIABLES, SETTINGS
from tensor_wasm.errors import Ending
from tensor_wasm.telemetry.metrics_reference import families

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "dashboards" / "tensor-wasm-overview.json"
#: What Prometheus itself adds: series, and labels of every series that it scraped.
OF_PROMETHEUS = {
    "up": set(),
    "scrape_duration_seconds": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "slo", "objective"},
}
OF_THE_SCRAPE = {"job", "instance", "deployment"}


@dataclass(frozen=True, slots=True)
class Program:
    """Names that exist. ``metrics`` and ``rules`` lead to their labels, ``spans`` to their attributes."""

    metrics: dict[str, set[str]]
    rules: dict[str, set[str]]
    alerts: dict[str, list[dict[str, Any]]]
    routes: set[tuple[str, str]]
    outcomes: set[str]
    settings: set[str]
    spans: dict[str, set[str]]
    panels: set[str]
    observation: dict[str, Any]


@cache
def program() -> Program:
    """All that there is, from its sources."""
    alerts = rules("alert")
    recorded = {name: _grouped(entry["expr"]) for name, (entry, *_) in rules("record").items()}
    return Program(
        metrics=_metrics(),
        rules=recorded,
        alerts=alerts,
        routes=_routes(),
        outcomes={ending.value for ending in Ending},
        settings={setting.variable for setting in SETTINGS} | CLIENT_VARIABLES,
        spans=_spans(),
        panels={panel["title"] for panel in panels()},
        observation=json.loads((ROOT / "docs" / "observe.schema.json").read_text("utf-8")),
    )


def rules(kind: str) -> dict[str, list[dict[str, Any]]]:
    """Rules of deploy/prometheus by name; ``kind`` is "alert" or "record"."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((ROOT / "deploy" / "prometheus").glob("*.yml")):
        for group in yaml.safe_load(path.read_text("utf-8")).get("groups", ()):
            for rule in group["rules"]:
                if kind in rule:
                    found.setdefault(rule[kind], []).append(rule)
    return found


def panels() -> list[dict[str, Any]]:
    """Panels of the dashboard, those in rows too; rows themselves are none."""
    waiting, found = list(json.loads(DASHBOARD.read_text("utf-8"))["panels"]), []
    while waiting:
        panel = waiting.pop(0)
        waiting += panel.get("panels", ())
        if panel["type"] != "row":
            found.append(panel)
    return found


@cache
def release_parser() -> ArgumentParser:
    """The command line of deploy/systemd/tensor-wasm-release, which is a program of its own."""
    path = ROOT / "deploy" / "systemd" / "tensor-wasm-release"
    loader = importlib.machinery.SourceFileLoader("tensor_wasm_release", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # its dataclasses look for their module
    keeps, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing beside the script
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keeps
    parser = module._parser()
    assert isinstance(parser, ArgumentParser)
    return parser


def _metrics() -> dict[str, set[str]]:
    names = {}
    for family in families():
        labels, name = set(family.labels), f"tensor_wasm_{family.name}"
        names[name] = labels
        if family.kind == "histogram":
            names |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    return names


def _grouped(expression: str) -> set[str]:
    """Labels that a rule's expression keeps: those that it groups by, or all that might be there."""
    groups = re.findall(r"\bby \(([^)]*)\)", expression)
    named = {label.strip() for group in groups for label in group.split(",")} - {"le"}
    return named or OF_THE_SCRAPE


def _routes() -> set[tuple[str, str]]:
    source = "".join(p.read_text("utf-8") for p in (ROOT / "src" / "tensor_wasm" / "http" / "routes").rglob("*.py"))
    found = re.findall(r'method="(\w+)",\s*path="([^"]+)"', source)
    return {(method, re.sub(r"\{(\w+)\}", r":\1", path)) for method, path in found}


#: Where spans get their names and attributes.
_TRACING = ("host/trace.py", "host/cuda.py", "node/sandbox.py", "http/app.py", "telemetry/*.py")


def _spans() -> dict[str, set[str]]:
    """The spans of the design, as far as the program's own texts have their names and attributes."""
    dispatches = {"launches", "launches_dropped", "syncs", "syncs_dropped"}
    axes = {f"{what}_{axis}" for what in ("grid", "block") for axis in "xyz"}
    device = {"device_kernel_us", "device_copy_in_us", "device_copy_out_us"}
    request = {"http.request.method", "http.route", "http.response.status_code", "request_id", "tenant", "error.type"}
    designed = {
        "http.request": request,
        "tensor_wasm.spawn_instance": {"tenant", "instance_id", "wasm_bytes"},
        "tensor_wasm.call_export": {"instance_id", "export", "outcome"} | dispatches,
        "wasi_cuda.load_ptx": {"instance_id", "ptx_bytes", "entry", "cached"},
        "wasi_cuda.launch": {"instance_id", "kernel", "shared_mem", "permit_wait_us", "execution_us"} | axes | device,
        "wasi_cuda.sync": {"instance_id"},
    }
    package = ROOT / "src" / "tensor_wasm"
    texts = [path.read_text("utf-8") for pattern in _TRACING for path in sorted(package.glob(pattern))]
    written = {
        node.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {name: attributes & written for name, attributes in designed.items() if name in written}
