"""``mma.sync``: which products of matrices there are, and what they ask of the lowering (PTX ISA, "mma").

D = A * B + C. The operand words are the fragments of A, B and C in this order, the result words that of D. Here are
the shapes and types of sm_80 in the layout of :mod:`.fragments`. The m8n8k4 of f16, four products of quarter warps in
a layout of Volta's, and sparse products are not supported.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.warp.integral import write_integral
from tensor_wasm.compiler.warp.mailbox import Builder, Resolver, builder
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.compiler.warp.product import ELEMENT_BITS, Product
from tensor_wasm.compiler.warp.real import write_double, write_real
from tensor_wasm.ptx.program import Instruction, ScalarType

_SHAPE: Final = re.compile(r"m(\d{1,2})n8k(\d{1,3})", re.ASCII)
#: As what the registers of a fragment go into the mailbox; elements of fewer bits are packed.
_HELD: Final[Mapping[str, ScalarType]] = MappingProxyType(
    {"f64": ScalarType.F64, "f32": ScalarType.F32, "s32": ScalarType.S32}
)


def _products() -> Iterator[Product]:
    for depth, d, c in itertools.product((8, 16), ("f16", "f32"), ("f16", "f32")):
        yield Product(16, depth, d, "f16", "f16", c)
    for kind, depths in (("bf16", (8, 16)), ("tf32", (4, 8))):
        for depth in depths:
            yield Product(16, depth, "f32", kind, kind, "f32")
    yield Product(8, 4, "f64", "f64", "f64", "f64")
    for bits in (8, 4):
        kinds = (f"s{bits}", f"u{bits}")
        for rows, depth in ((8, 128 // bits), (16, 128 // bits), (16, 256 // bits)):
            for a, b, is_saturating in itertools.product(kinds, kinds, (False, True)):
                yield Product(rows, depth, "s32", a, b, "s32", is_saturating)
    for rows, depth in ((8, 128), (16, 128), (16, 256)):
        for joined in ("xor", "and"):
            yield Product(rows, depth, "s32", "b1", "b1", "s32", joined=joined)


#: Every form there is.
PRODUCTS: Final[frozenset[Product]] = frozenset(_products())


def plan(instruction: Instruction) -> Plan | None:
    """The plan of an ``mma``, None for a form there is not."""
    product = _product(instruction)
    if product is None or product not in PRODUCTS:
        return None
    sources = (
        *_registers(product.a, product.a_words),
        *_registers(product.b, product.b_words),
        *_registers(product.c, product.c_words),
    )
    results = _registers(product.d, product.d_words)
    if (len(instruction.sources), len(instruction.destinations)) != (len(sources), len(results)):
        return None
    return Plan(product.key, tuple(itertools.starmap(Operand, enumerate(sources))), results=results)


def _product(instruction: Instruction) -> Product | None:
    """The form an instruction is written as, whether it exists or not; None for one that cannot be a form."""
    modifiers = instruction.modifiers
    shape = _SHAPE.fullmatch(modifiers[2]) if len(modifiers) > 2 else None
    if shape is None or (modifiers[:2], modifiers[3:5]) != (("sync", "aligned"), ("row", "col")):
        return None
    rest = list(modifiers[5:])
    is_saturating = rest[:1] == ["satfinite"]
    del rest[: int(is_saturating)]
    # Elements smaller than a byte are not types of registers: the program has them among the modifiers.
    small = list(itertools.takewhile(ELEMENT_BITS.__contains__, rest))
    counted = rest[len(small) :]
    kinds = [kind.ptx_name for kind in instruction.types]
    kinds[1:1] = small
    if len(kinds) != 4 or (counted and (len(counted), counted[-1]) != (2, "popc")):
        return None
    d, a, b, c = kinds
    return Product(int(shape[1]), int(shape[2]), d, a, b, c, is_saturating, counted[0] if counted else "")


def _registers(kind: str, count: int) -> tuple[ScalarType, ...]:
    """The registers of a fragment that takes ``count`` words."""
    held = _HELD.get(kind, ScalarType.B32)
    return (held,) * (count * 32 // held.bits)


def _resolver(product: Product) -> Builder:
    def write(resolver: Resolver) -> None:
        match product.a:
            case "f64":
                write_double(resolver, product)
            case "f16" | "bf16" | "tf32":
                write_real(resolver, product)
            case _:
                write_integral(resolver, product)

    return builder(product.key, write)


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType({product.key: _resolver(product) for product in PRODUCTS})
