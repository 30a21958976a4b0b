"""The checks find what is not there: each is given a page with one thing invented."""

from __future__ import annotations

import pytest

from docs import checks
from docs.pages import Page, commands
from docs.program import program

GOOD = """\
# Page

## A heading of 5 µs

```promql
sum by (tenant) (rate(tensor_wasm_kernel_dispatches_total{tenant="7"}[5m])) / on() group_left
  max(tensor_wasm:kernel_latency_seconds:p95_5m{deployment="host"} > 0)
```

```sh
tensor-wasm admin instance list --tenant 7 --json | jq -r '.instances[].id' \\
  | xargs -r tensor-wasm admin instance terminate
tensor-wasm observe --once | jq '.dispatch.p95_s, .tenants[].waiting' > "/tmp/x-$(date +%s).json"
PROMETHEUS=http://127.0.0.1:9090
curl -s http://127.0.0.1:8080/healthz
tensor-wasm-release switch VERSION
systemctl restart tensor-wasm
make drill NAME=snapshot_io
```

`TensorWasmHealthzSlow`, `POST /functions/:id/invoke`, `/healthz`, `TENSOR_WASM_HOME`, `wasi_cuda.launch`, `--rate-qps`,
`permits.utilization`, `src/tensor_wasm/http`, [here](#a-heading-of-5-µs), [there](README.md).

| span | below | attributes |
|---|---|---|
| `wasi_cuda.sync` | | `instance_id` |
"""


def page(text: str) -> Page:
    return Page("docs/page.md", text)


def test_a_page_of_what_exists_is_accepted() -> None:
    assert checks.problems(page(GOOD.replace("(README.md)", "(SLO.md)")), program()) == []


@pytest.mark.parametrize(
    ("there", "invented", "said"),
    [
        ("tensor_wasm_kernel_dispatches_total", "tensor_wasm_kernel_dispatch_total", "no metric"),
        ("tensor_wasm:kernel_latency_seconds:p95_5m", "tensor_wasm:kernel_latency_seconds:p94_5m", "no recording rule"),
        ("sum by (tenant)", "sum by (reactor_id)", "no label reactor_id"),
        ('{tenant="7"}', '{customer="7"}', "no label customer"),
        ('{tenant="7"}', '{job="other"}', "job is never"),
        ("TensorWasmHealthzSlow", "TensorWasmHealthzDown", "no alert"),
        ("/functions/:id/invoke", "/functions/:id/call", "no route"),
        ("`POST /functions", "`PUT /functions", "no route"),
        ("8080/healthz", "8080/health", "no route"),
        ("TENSOR_WASM_HOME", "TENSOR_WASM_HOUSE", "no setting"),
        ("instance terminate", "instance kill", "no command 'kill'"),
        ("list --tenant", "list --client", "no option --client"),
        ("release switch", "release swap", "tensor-wasm-release"),
        ("restart tensor-wasm", "restart tensorwasm", "no unit"),
        ("NAME=snapshot_io", "NAME=no_such_thing", "there is no make"),
        ("curl -s", "wget -q", "wget is not a program"),
        ("`--rate-qps`", "`--rate-limit`", "no command has the option"),
        ("wasi_cuda.launch", "wasi_cuda.enqueue", "no span"),
        ("| | `instance_id` |", "| | `instance_id`, `stream` |", "has the attributes"),
        ("permits.utilization", "permits.use", "no field permits.use"),
        (".dispatch.p95_s", ".dispatch.p96_s", "no field dispatch.p96_s"),
        (".tenants[].waiting", ".tenants[].patience", "no field tenants.patience"),
        ("(SLO.md)", "(SLA.md)", "no file SLA.md"),
        ("(#a-heading-of-5-µs)", "(#a-heading)", "no heading"),
        ("src/tensor_wasm/http", "src/tensor_wasm/https", "no file src"),
        ("# Page", "# A tokio page", "'tokio' is not of this system"),
        ("# Page", "# The **Kernel latencies** panel", "no panel"),
    ],
)
def test_what_is_invented_is_found(there: str, invented: str, said: str) -> None:
    good = GOOD.replace("(README.md)", "(SLO.md)")
    assert good.count(there) == 1 or there == "# Page"
    found = checks.problems(page(good.replace(there, invented, 1)), program())
    assert any(said in text for text in found), found


def test_a_name_that_is_no_series_is_found() -> None:
    assert list(checks.query("sum(rate(process_start_time_seconds[5m]))", program())) == [
        "there is no series process_start_time_seconds"
    ]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a b | c 'd | e' && f; g", [["a", "b"], ["c", "d | e"], ["f"], ["g"]]),
        ("sudo -u somebody a --b > /tmp/file 2>&1", [["a", "--b"]]),
        ("export A=$(a b)", [["a", "b"]]),
        ('A=1 a "x-$(b +%s)"  # c', [["a", "x-SUBSTITUTED"], ["b", "+%s"]]),
        ("for a in b c; do d $a; done", [["d", "$a"]]),
        ("# nothing", []),
    ],
)
def test_the_commands_of_a_line_are_found(line: str, found: list[list[str]]) -> None:
    assert [words for words in commands(line) if words] == found
