"""What an operator sees: metrics of a node in Prometheus' text, the lag of the event loop, logs."""

from tensor_wasm.telemetry.collector import Collector
from tensor_wasm.telemetry.exposition import render
from tensor_wasm.telemetry.http_metrics import HttpMetrics
from tensor_wasm.telemetry.lag import LagMonitor

__all__ = ["Collector", "HttpMetrics", "LagMonitor", "render"]
