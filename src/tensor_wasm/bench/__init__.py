"""Benchmarks that anyone can rerun: each measures this node and, in the same run, a peer that does the plain thing."""

from tensor_wasm.bench.report import Case, Report

__all__ = ["Case", "Report"]
