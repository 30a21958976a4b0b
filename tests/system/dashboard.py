"""The Grafana dashboard as it is committed, and its expressions as Grafana sends them."""

from __future__ import annotations

import json
import re

from system.front_door import ROOT

PATH = ROOT / "docs" / "dashboards" / "tensor-wasm-overview.json"
DASHBOARD = json.loads(PATH.read_text("utf-8"))
#: What Grafana makes of `$__rate_interval` is at least four scrapes; this is enough of them on a slow machine too.
RATE_INTERVAL = "30s"

_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


def drawn(expression: str) -> str:
    """An expression with its variables filled in, all of them at "All"."""
    filled = expression.replace("$__rate_interval", RATE_INTERVAL)
    for variable in DASHBOARD["templating"]["list"]:
        if variable.get("includeAll"):
            filled = filled.replace(f"${variable['name']}", variable["allValue"])
    return filled


def expressions() -> dict[tuple[str, str], str]:
    """Each panel's expressions by title and letter."""
    return {
        (panel["title"], target["refId"]): drawn(target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }


def variables() -> dict[str, tuple[str, str]]:
    """The variables that ask Prometheus: an expression, and the label whose values they offer."""
    found = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            expression, label = _VALUES.fullmatch(variable["definition"]).groups()
            found[variable["name"]] = (drawn(expression), label)
    return found
