"""The text of ``docs/metrics.md``: every metric family, from the families themselves.

``python -m tensor_wasm.telemetry.metrics_reference > docs/metrics.md`` writes the page.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable
from importlib import import_module

from tensor_wasm import telemetry
from tensor_wasm.errors import Ending
from tensor_wasm.node.statistics import QUOTAS, RATE
from tensor_wasm.telemetry.collector import REJECTION_REASONS
from tensor_wasm.telemetry.families import PREFIX, Family
from tensor_wasm.telemetry.http_metrics import OTHER
from tensor_wasm.telemetry.nvml import THROTTLE_REASONS
from tensor_wasm.telemetry.span_export import OUTCOMES as SPAN_OUTCOMES
from tensor_wasm.telemetry.tenants import SHOWN_MAX

#: Headings, and how the names of the families below them begin. What fits none is below the last.
_SECTIONS = (
    ("Launches and kernels", ("kernel_", "dispatch_")),
    ("Instances", ("active_", "instance_", "guest_", "gpu_", "snapshot", "streaming_")),
    ("Work that waits or was refused", ("functions", "jobs_", "queued_", "quota_", "rate_")),
    ("HTTP", ("http_", "event_")),
    ("GPUs", ("device_",)),
    ("The node", ("",)),
)


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


#: What each label may say.
LABELS: dict[str, str] = {
    "device": "the node's device, `cpu` or `cuda:0`; on a node whose device is the CPU, what tells of a GPU has its"
    " name, `cuda:0`, in the order of the PCI bus",
    "git_sha": "the commit that the program was built from, or `unknown`",
    "method": f"the request's method, `{OTHER}` for one that no HTTP standard names",
    "outcome": f"how an instance ended: {_words(ending.value for ending in Ending)}; what became of a trace's spans:"
    f" {_words(SPAN_OUTCOMES)}",
    "python": "the version of Python",
    "quota": f"the quota that was full: {_words(quota for quota in QUOTAS if quota != RATE)}",
    "reason": f"why: of launches {_words(REJECTION_REASONS)}; of connections `idle` (between two requests), `refused`,"
    " `silent` (asked nothing yet)",
    "route": f"the path's template, `/functions/:id/invoke`, or `{OTHER}`: clients cannot invent values",
    "status": "the answer's status; `499` when the client left before it",
    "tenant": f"the tenant's number; past {SHOWN_MAX} tenants the least busy are summed in `{OTHER}`",
    "tier": "`memory` or `disk`",
    "version": "the release",
    "wasmtime": "the version of Wasmtime",
}


def families() -> list[Family]:
    """Every family there is, by name: those that the modules of this room define."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(telemetry.__path__, f"{telemetry.__name__}."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, Family):
                found[value.name] = value
    return [found[name] for name in sorted(found)]


def page() -> str:
    """The page."""
    known = families()
    lines = [*_INTRODUCTION]
    left = known
    for title, beginnings in _SECTIONS:
        here = [family for family in left if family.name.startswith(beginnings)]
        left = [family for family in left if family not in here]
        lines += ["", f"## {title}", "", "| name | type | labels | unit | what it tells |", "|---|---|---|---|---|"]
        lines += [_row(family) for family in here]
    lines += ["", "## Labels", "", "| label | what it says |", "|---|---|"]
    lines += [f"| `{name}` | {LABELS[name]} |" for name in sorted({label for row in known for label in row.labels})]
    lines += ["", "## Buckets", "", "Upper bounds (`le`) of the histograms' buckets; the last is always `+Inf`.", ""]
    lines += ["| histogram | bounds |", "|---|---|"]
    lines += [f"| `{PREFIX}{row.name}` | {_words(map(repr, row.bounds))} |" for row in known if row.bounds]
    lines += [*_THROTTLING, *(f"| {bit} | `{name}` |" for name, bit in THROTTLE_REASONS.items())]
    return "\n".join(lines) + "\n"


def _row(family: Family) -> str:
    cells = (f"`{PREFIX}{family.name}`", family.kind, _words(family.labels), family.unit, family.help)
    return f"| {' | '.join(cells)} |"


_INTRODUCTION = (
    "# Metrics",
    "",
    "What `GET /metrics` gives, and `tensor-wasm metrics` prints. Written by",
    "`python -m tensor_wasm.telemetry.metrics_reference > docs/metrics.md`; a test holds a running node to it.",
    "",
    "Families are there from the first scrape, with zeros, so that ratios have data. Those of GPUs have a series for",
    "the GPU that the node uses, or, where its device is the CPU, for each that NVIDIA's driver shows, read by NVML",
    "(the package `nvidia-ml-py`, extra `cuda`), and none without it. A driver that hangs holds no scrape up: its last",
    "values are shown for ten seconds, then none.",
    "",
    "Who asks for `application/openmetrics-text` gets OpenMetrics, as Prometheus does by itself. There",
    "`tensor_wasm_http_request_duration_seconds` has *exemplars*: with each bucket the id of the newest trace that",
    "fell into it, when requests are traced. Prometheus keeps them with `--enable-feature=exemplar-storage`.",
)

_THROTTLING = (
    "",
    "## What slows a GPU's clocks",
    "",
    "`tensor_wasm_device_throttle_reasons` is the sum of these; 0 means that nothing does. An idle GPU, and clocks",
    "that somebody has set, do not count. `floor(tensor_wasm_device_throttle_reasons / 32) % 2 == 1` asks for 32.",
    "",
    "| bit | reason |",
    "|---|---|",
)

if __name__ == "__main__":
    sys.stdout.write(page())
