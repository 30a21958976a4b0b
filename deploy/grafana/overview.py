"""The Grafana dashboard as the JSON that Grafana imports; its panels are in `panels.py`.

python deploy/grafana/overview.py > docs/dashboards/tensor-wasm-overview.json
"""

# ruff: noqa: T201 - a script: it prints what it makes.

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from panels import NODES, ROWS, RUNBOOKS, Panel, Query

UID = "tensor-wasm-overview"

_COLUMNS = 24
#: Grafana's number for what asks for a label's values.
_LABEL_VALUES = 1
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The whole dashboard as Grafana imports it."""
    return {
        "uid": UID,
        "title": "TensorWasm overview",
        "description": "Objectives, HTTP, kernel dispatch, instances and memory of TensorWasm nodes.",
        "tags": ["tensor-wasm"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair over all panels: what happened together is seen together
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "title": "Runbooks", "type": "link", "url": f"{RUNBOOKS}/README.md", "icon": "doc",
                "targetBlank": True, "asDropdown": False, "includeVars": False, "keepTime": False, "tags": [],
                "tooltip": "What to do about each alert",
            }
        ],
        "annotations": {"list": [_firing_alerts()]},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        ],
    }  # fmt: skip


def _firing_alerts() -> dict[str, Any]:
    return {
        "name": "Firing alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"TensorWasm.*", alertstate="firing"}',
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}} {{deployment}}",
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
        "includeAll": False, "multi": False, "refresh": 1, "regex": "", "options": [], "current": {},
    }  # fmt: skip
    for name, label, values in (
        ("deployment", "Deployment", "label_values(tensor_wasm_build_info, deployment)"),
        ("instance", "Node", 'label_values(tensor_wasm_build_info{deployment=~"$deployment"}, instance)'),
        ("tenant", "Tenant", f"label_values(tensor_wasm_kernel_dispatches_total{{{NODES}}}, tenant)"),
        ("route", "Route", f"label_values(tensor_wasm_http_requests_total{{{NODES}}}, route)"),
    ):
        yield {
            "name": name, "label": label, "type": "query", "datasource": _SOURCE, "hide": 0,
            "definition": values, "query": {"qryType": _LABEL_VALUES, "query": values, "refId": f"{name}-values"},
            "includeAll": True, "allValue": ".*", "multi": True, "refresh": 2, "sort": 3, "regex": "",
            "options": [], "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }  # fmt: skip


def _panels() -> Iterator[dict[str, Any]]:
    """Rows and panels with their places: panels from left to right, a new line when one does not fit."""
    number, top = 0, 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel) -> dict[str, Any]:
    description = panel.description
    if panel.runbook is not None:
        description += f"\n\n[Runbook: {panel.runbook}]({RUNBOOKS}/{panel.runbook}.md)"
    made = {
        "title": panel.title,
        "description": description,
        "type": panel.kind,
        "datasource": _SOURCE,
        "targets": [_target(panel, query, chr(ord("A") + index)) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "table":
        hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _target(panel: Panel, query: Query, letter: str) -> dict[str, Any]:
    is_now = panel.kind != "timeseries"
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend,
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": is_now,
        "range": not is_now,
        "exemplar": panel.has_exemplars,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    # A value has the colour of the highest step that it has reached. Where more is better, what is below is red.
    base = "red" if panel.lines and panel.lines[0].colour == "green" else "green"
    steps = [{"color": base, "value": None}, *({"color": line.colour, "value": line.value} for line in panel.lines)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [],
    }
    limits = {"min": panel.lowest, "max": panel.highest, "decimals": panel.decimals}
    defaults |= {name: value for name, value in limits.items() if value is not None}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.is_stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.is_logarithmic else {"type": "linear"},
            "thresholdsStyle": {"mode": "line" if panel.lines else "off"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "auto",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    is_wide = panel.width > _COLUMNS // 2
    return {
        "legend": {
            "showLegend": True,
            "displayMode": "table" if is_wide else "list",
            "placement": "right" if is_wide else "bottom",
            "calcs": ["lastNotNull", "max"] if is_wide else [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def main() -> None:
    """Print it."""
    print(json.dumps(dashboard(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
