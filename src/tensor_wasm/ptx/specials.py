"""Special registers: names and types (PTX ISA, "Special Registers")."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.ptx.program import Immediate, ScalarType, Special

AXES: Final = ("x", "y", "z")

_VECTORS: Final = (
    "tid",
    "ntid",
    "ctaid",
    "nctaid",
    "clusterid",
    "nclusterid",
    "cluster_ctaid",
    "cluster_nctaid",
)
_SCALARS: Final[Mapping[ScalarType, tuple[str, ...]]] = MappingProxyType(
    {
        ScalarType.U32: (
            "laneid",
            "warpid",
            "nwarpid",
            "smid",
            "nsmid",
            "lanemask_eq",
            "lanemask_le",
            "lanemask_lt",
            "lanemask_ge",
            "lanemask_gt",
            "clock",
            "clock_hi",
            "globaltimer_lo",
            "globaltimer_hi",
            "cluster_ctarank",
            "cluster_nctarank",
            "dynamic_smem_size",
            "total_smem_size",
            "aggr_smem_size",
            "reserved_smem_offset_begin",
            "reserved_smem_offset_end",
            "reserved_smem_offset_cap",
            *(f"pm{number}" for number in range(8)),
        ),
        ScalarType.U64: (
            "gridid",
            "clock64",
            "globaltimer",
            "current_graph_exec",
            *(f"pm{number}_64" for number in range(8)),
        ),
        ScalarType.B32: tuple(f"envreg{number}" for number in range(32)),
        ScalarType.PRED: ("is_explicit_cluster",),
    }
)


def _table() -> Mapping[str, Special | Immediate]:
    table: dict[str, Special | Immediate] = {}
    for name in _VECTORS:
        for axis in AXES:
            table[f"%{name}.{axis}"] = Special(name, axis, ScalarType.U32)
        table[f"%{name}.w"] = Immediate(0, ScalarType.U32)  # "always returns zero"
    for kind, names in _SCALARS.items():
        for name in names:
            table[f"%{name}"] = Special(name, "", kind)
    return MappingProxyType(table)


#: By the name in the text, ``%tid.x``. The fourth axis of the vectors is the constant 0.
SPECIALS: Final = _table()
