"""How a PTX value lies in WebAssembly: the value type that carries each PTX type, and changes between them.

Predicates are i32 0 or 1; integers and untyped bits up to 32 are i32, of 64 i64; f32 and f64 are themselves; 16-bit
and packed floats are their bits in an i32. A *canonical* value of a type narrower than its carrier is zero-extended,
or sign-extended for a signed type; registers of up to 16 bits are always kept zero-extended.
"""

from __future__ import annotations

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.wasm import Body, ValType


def carrier(kind: ScalarType) -> ValType:
    """The WebAssembly type that carries values of ``kind``. Raises :class:`PtxError` for types of over 64 bits."""
    if kind is ScalarType.F32:
        return ValType.F32
    if kind is ScalarType.F64:
        return ValType.F64
    if kind.bits <= 32:
        return ValType.I32
    if kind.bits == 64:
        return ValType.I64
    raise PtxError(f"registers of type .{kind.ptx_name} are not supported")


def convert(body: Body, source: ScalarType, target: ScalarType) -> None:
    """Turn the value on the stack, canonical bits of ``source``, into the same bits as a canonical ``target``.

    Bits are never converted as numbers. A narrower target truncates; a wider one zero-extends, or sign-extends when
    ``source`` is signed.
    """
    if source is target:
        return
    have, want = carrier(source), carrier(target)
    if have is want and have in (ValType.F32, ValType.F64):
        return
    is_wide = _as_integer(body, have)
    if carrier_bits(want) == 64 and not is_wide:
        body.op("i64.extend_i32_s" if source.is_signed else "i64.extend_i32_u")
    elif carrier_bits(want) == 32 and is_wide:
        body.op("i32.wrap_i64")
    if want is ValType.I32:
        _canonical(body, source, target)
    elif want is ValType.F32:
        body.op("f32.reinterpret_i32")
    elif want is ValType.F64:
        body.op("f64.reinterpret_i64")


def store_form(body: Body, result: ScalarType, register: ScalarType) -> None:
    """Turn a result of type ``result``, with anything above its bits, into the kept form of a register's type.

    It is extended to a wider register by its own sign, and cut for a narrower one.
    """
    # Where it is not extended its sign does not matter, and a mask is what both need.
    kind = result if result.bits < register.bits else kept_form(result)
    clean(body, kind)
    convert(body, kind, kept_form(register))


def kept_form(kind: ScalarType) -> ScalarType:
    """The type whose canonical values registers of ``kind`` keep: unsigned up to 16 bits."""
    if kind.bits == 16:
        return ScalarType.B16
    return ScalarType.B8 if kind.bits == 8 else kind


def carrier_bits(kind: ValType) -> int:
    """32 or 64: the width of a carrier."""
    return 64 if kind in (ValType.I64, ValType.F64) else 32


def clean(body: Body, kind: ScalarType) -> None:
    """Make an i32 with anything above its ``kind.bits`` bits canonical; nothing to do from 32 bits on."""
    if kind is ScalarType.PRED or kind.bits >= 32:
        return
    if kind.is_signed:
        body.op("i32.extend8_s" if kind.bits == 8 else "i32.extend16_s")
    else:
        mask(body, kind.bits)


def mask(body: Body, bits: int) -> None:
    """Clear an i32 above its low ``bits``."""
    body.i32_const((1 << bits) - 1)
    body.op("i32.and")


def _as_integer(body: Body, have: ValType) -> bool:
    """Turn a float's bits into an integer; whether the value has 64 bits."""
    if have is ValType.F32:
        body.op("i32.reinterpret_f32")
    elif have is ValType.F64:
        body.op("i64.reinterpret_f64")
    return carrier_bits(have) == 64


def _canonical(body: Body, source: ScalarType, target: ScalarType) -> None:
    """Finish :func:`convert` for an i32: from canonical ``source`` to canonical ``target``."""
    if target.bits >= 32:
        return
    is_same_form = source.bits < target.bits and not source.is_signed
    is_same_form |= source.bits == target.bits and source.is_signed == target.is_signed
    is_same_form |= source.bits < target.bits and source.is_signed and target.is_signed
    if not is_same_form:
        clean(body, target)
