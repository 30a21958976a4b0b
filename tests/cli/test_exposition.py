from __future__ import annotations

import pytest

from tensor_wasm.cli.exposition import quantile

TEXT = """# TYPE x_seconds histogram
x_seconds_bucket{tenant="1",le="1e-06"} 90.0
x_seconds_bucket{tenant="1",le="2e-06"} 100.0
x_seconds_bucket{tenant="1",le="+Inf"} 100.0
x_seconds_bucket{le="1e-06",tenant="2"} 0.0
x_seconds_bucket{le="2e-06",tenant="2"} 100.0
x_seconds_bucket{le="+Inf",tenant="2"} 100.0
x_seconds_count{tenant="1"} 100.0
other_seconds_bucket{le="+Inf"} 3.0
"""


@pytest.mark.parametrize(
    ("fraction", "value"),
    [(0.45, 1e-6), (0.225, 0.5e-6), (0.725, 1.5e-6), (0.95, 1e-6 + 100 / 110 * 1e-6), (1.0, 2e-6)],
)
def test_a_quantile_is_interpolated_over_all_label_sets(fraction, value):
    assert quantile(TEXT, "x_seconds", fraction) == pytest.approx(value)


def test_what_lies_above_the_last_bound_is_given_as_that_bound():
    text = 'y_bucket{le="0.5"} 1.0\ny_bucket{le="+Inf"} 10.0\n'
    assert quantile(text, "y", 0.95) == 0.5


def test_no_samples_give_no_quantile():
    assert quantile('y_bucket{le="0.5"} 0.0\ny_bucket{le="+Inf"} 0.0\n', "y", 0.95) is None
    assert quantile(TEXT, "absent", 0.95) is None
