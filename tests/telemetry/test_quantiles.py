from __future__ import annotations

import json
import random
import shutil
import subprocess

import pytest

from tensor_wasm.telemetry.quantiles import latency, quantile, rounded, since

BOUNDS = (0.001, 0.01, 0.1)


def test_without_observations_there_is_no_percentile():
    assert quantile(BOUNDS, (0, 0, 0, 0), 0.5) is None
    empty = latency(BOUNDS, (0, 0, 0, 0), 10.0)
    assert (empty.count, empty.per_s, empty.p50_s, empty.p95_s, empty.p99_s) == (0, 0.0, None, None, None)


def test_values_are_spread_evenly_in_their_bucket():
    assert quantile(BOUNDS, (10, 0, 0, 0), 0.5) == pytest.approx(0.0005)
    assert quantile(BOUNDS, (0, 10, 0, 0), 0.95) == pytest.approx(0.001 + 0.009 * 0.95)
    assert quantile(BOUNDS, (5, 0, 5, 0), 0.5) == pytest.approx(0.001)
    assert quantile(BOUNDS, (5, 0, 5, 0), 0.6) == pytest.approx(0.01 + 0.09 * 0.2)


def test_what_is_above_every_bound_counts_as_the_highest():
    assert quantile(BOUNDS, (1, 0, 0, 99), 0.95) == 0.1


def test_counters_that_are_read_while_they_are_written_do_not_shrink():
    assert since((5, 2), (3, 4)) == (2, 0)


def test_six_digits_are_enough():
    assert rounded(0.000123456789) == 0.000123457


@pytest.mark.slow  # needs promtool
def test_prometheus_reckons_the_same(tmp_path):
    promtool = shutil.which("promtool")
    assert promtool is not None, "this test needs promtool: apt-get install prometheus"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    bounds = (5e-7, 1e-6, 2.5e-6, 5e-5, 0.001, 0.1, 10.0)
    series, expected = [], []
    for number in range(40):
        counts = [draw.choice((0, 0, 1, draw.randrange(1000))) for _ in range(len(bounds) + 1)]
        counts[draw.randrange(len(counts))] += 1
        so_far = 0
        for bound, count in zip((*bounds, float("inf")), counts, strict=True):
            so_far += count
            le = "+Inf" if bound == float("inf") else repr(bound)
            series.append({"series": f'x_bucket{{n="{number}",le="{le}"}}', "values": str(so_far)})
        expected += [
            {
                "expr": f'abs(histogram_quantile({part}, x_bucket{{n="{number}"}}) / {quantile(bounds, counts, part)!r}'
                " - 1) < bool 1e-9",
                "eval_time": "0m",
                "exp_samples": [{"labels": f'{{n="{number}"}}', "value": 1}],
            }
            for part in (0.5, 0.95, 0.99)
        ]
    test = tmp_path / "test.yml"
    tests = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    test.write_text(json.dumps({"tests": [tests]}))  # JSON is YAML
    done = subprocess.run([promtool, "test", "rules", str(test)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
