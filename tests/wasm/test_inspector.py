import random
import time

import pytest
import wasmtime

from tensor_wasm.errors import InvalidWasm
from tensor_wasm.runtime import Engine
from tensor_wasm.wasm.inspector import (
    FunctionExport,
    FunctionImport,
    MemoryLimits,
    ModuleInfo,
    TableLimits,
    inspect,
)
from tensor_wasm.wasm.leb import unsigned

PREAMBLE = b"\0asm\x01\0\0\0"

WAT = """
(module
  (type $pair (func (param i32 f64) (result i64 f32)))
  (import "wasi:cuda/host@0.2.0" "wasi_cuda_sync" (func $sync (result i32)))
  (import "env" "größe" (func $pair (type $pair)))
  (memory (export "memory") 2 10)
  (table (export "table") 3 funcref)
  (table 1 5 externref)
  (global (export "g") (mut i64) (i64.const -9223372036854775808))
  (global v128 (v128.const i64x2 1 2))
  (global f32 (f32.const 1.5))
  (global f64 (f64.const 1.5))
  (global funcref (ref.func $add))
  (global externref (ref.null extern))
  (global i32 (i32.add (i32.const 1) (i32.const 2)))
  (func $add (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "vector") (param v128 funcref externref))
  (func $init (drop (call $sync)))
  (export "again" (func $pair))
  (start $init)
  (elem (i32.const 0) $add)
  (data (i32.const 8) "hello")
  (data "passive"))
"""


@pytest.fixture(scope="module")
def wasm() -> bytes:
    return bytes(wasmtime.wat2wasm(WAT))


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + unsigned(len(content)) + content


def module(*sections: tuple[int, bytes]) -> bytes:
    return PREAMBLE + b"".join(section(number, content) for number, content in sections)


def text(name: str) -> bytes:
    return unsigned(len(name.encode())) + name.encode()


EMPTY_TYPE = (1, b"\x01\x60\x00\x00")


def test_a_module_s_outside_is_read(wasm):
    assert inspect(wasm) == ModuleInfo(
        imports=(
            FunctionImport("wasi:cuda/host@0.2.0", "wasi_cuda_sync", (), ("i32",)),
            FunctionImport("env", "größe", ("i32", "f64"), ("i64", "f32")),
        ),
        exports=(
            FunctionExport("add", ("i32", "i32"), ("i32",)),
            FunctionExport("vector", ("v128", "funcref", "externref"), ()),
            FunctionExport("again", ("i32", "f64"), ("i64", "f32")),
        ),
        memory=MemoryLimits(2, 10),
        exports_memory=True,
        has_start=True,
        tables=(TableLimits(3, None), TableLimits(1, 5)),
    )


def test_an_empty_module_has_nothing():
    assert inspect(PREAMBLE) == ModuleInfo((), (), None, False, False, ())


def test_a_memory_under_another_name_is_not_the_guest_s_memory():
    info = inspect(bytes(wasmtime.wat2wasm('(module (memory (export "heap") 1))')))
    assert info.memory == MemoryLimits(1, None)
    assert not info.exports_memory


def test_a_function_named_memory_is_no_memory():
    info = inspect(bytes(wasmtime.wat2wasm('(module (memory 1) (func (export "memory")))')))
    assert not info.exports_memory


def test_a_padded_length_is_read_as_wasmtime_reads_it(engine):
    padded = PREAMBLE + b"\x01" + b"\x84\x80\x80\x80\x00" + EMPTY_TYPE[1]
    engine.compile(padded)
    inspect(padded)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0as", "cut short"),
        (b"\0asm\x01\0", "cut short (at offset 6)"),
        (b"\x7fELF\x02\x01\x01\0", "not a WebAssembly module"),
        (b"hello", "not a WebAssembly module"),
        (b"  (module)", "WebAssembly text"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (b"\0asm\x02\0\0\0", "version 2"),
        (PREAMBLE + b"\x01", "cut short (at offset 9)"),
        (PREAMBLE + b"\x01\x05\x00", "has 5 bytes, the module has 1 left (at offset 8)"),
        (PREAMBLE + b"\x01\x80\x80\x80\x80\x80\x00", "does not fit 32 bits"),
        (PREAMBLE + b"\x01\xff\xff\xff\xff\x1f", "does not fit 32 bits"),
        (PREAMBLE + b"\x01\xff\xff\xff\xff\x0f", "has 4294967295 bytes"),
        (module((14, b"")), "unknown section 14"),
        (module((13, b"\x00")), "exceptions are not supported"),
        (module((0, b"")), "custom section is cut short"),
        (module((0, b"\x05ab")), "custom section is cut short"),
        (module((0, b"\x02\xff\xfe")), "not UTF-8 (at offset 11)"),
        (module((3, b"\x00"), (1, b"\x00")), "type section is out of order"),
        (module((1, b"\x00"), (1, b"\x00")), "there twice"),
        (module((10, b"\x00"), (12, b"\x00")), "data count section is out of order"),
        (module((1, b"\x00\x00")), "type section is 1 bytes longer than its content (at offset 11)"),
        (module((1, b"\xff\xff\xff\xff\x0f")), "4294967295 types: at most 100000"),
        (module((1, b"\x90\x4e")), "too short"),
        (module((1, b"\x01\x60\x01\x01\x00")), "unknown value type 0x01 (at offset 13)"),
        (module((1, b"\x01\x60\x02\x7f\x6e\x00")), "GC proposal"),
        (module((1, b"\x01\x60\x01\x64\x70\x00")), "function-references"),
        (module((1, b"\x01\x60\x01\x69\x00")), "exceptions"),
        (module((1, b"\x01\x5f\x00\x00")), "GC proposal"),
        (module((1, b"\x01\x4e\x00\x00")), "GC proposal"),
        (module((1, b"\x01\x11\x00\x00")), "unknown type form 0x11"),
        (module((2, b"\x01" + text("e") + text("f") + b"\x00\x00")), "type 0 does not exist"),
        (module((2, b"\x01" + text("e") + text("m") + b"\x02\x00\x01")), "import 'e'.'m' is a memory"),
        (module((2, b"\x01" + text("e") + text("t") + b"\x01\x70\x00\x01")), "import 'e'.'t' is a table"),
        (module((2, b"\x01" + text("e") + text("g") + b"\x03\x7f\x00")), "import 'e'.'g' is a global"),
        (module((2, b"\x01" + text("e") + text("g") + b"\x04\x00\x00")), "exception tag"),
        (module((2, b"\x01" + text("e") + text("g") + b"\x09\x00")), "unknown kind 9"),
        (module((2, b"\x01\x01\xff\x00\x00\x00")), "not UTF-8"),
        (module(EMPTY_TYPE, (3, b"\x01\x00")), "1 functions are declared and 0 have a body"),
        (module((10, b"\x01\x02\x00\x0b")), "0 functions are declared and 1 have a body"),
        (module(EMPTY_TYPE, (3, b"\x01\x01")), "type 1 does not exist"),
        (module((4, b"\x01\x7f\x00\x00")), "not a table's type"),
        (module((4, b"\x01\x40\x00\x70\x00\x00\xd0\x70\x0b")), "initial value"),
        (module((4, b"\x01\x70\x04\x00")), "64-bit"),
        (module((4, b"\x01\x70\x01\x05\x02")), "maximum 2 is below its minimum 5"),
        (module((5, b"\x02\x00\x01\x00\x01")), "one memory a guest"),
        (module((5, b"\x01\x03\x01\x02")), "shared"),
        (module((5, b"\x01\x04\x01")), "64-bit"),
        (module((5, b"\x01\x08\x01\x00")), "page size"),
        (module((5, b"\x01\x10\x01")), "unknown limits flags 0x10"),
        (module((5, b"\x01\x00\x81\x80\x04")), "larger than 65536 pages"),
        (module((5, b"\x01\x01\x00\x81\x80\x04")), "larger than 65536 pages"),
        (module((6, b"\x01\x7f\x02\x41\x00\x0b")), "neither constant"),
        (module((6, b"\x01\x7f\x00\x41\xff\xff\xff\xff\xff\xff\x0b")), "longer than 32 bits"),
        (module((6, b"\x01\x7f\x00\x20\x00\x0b")), "instruction 0x20 is not allowed"),
        (module((6, b"\x01\x7f\x00\xfb\x00\x0b")), "GC proposal"),
        (module((6, b"\x01\x7b\x00\xfd\x0d\x0b")), "SIMD instruction"),
        (module((6, b"\x01\x7f\x00\x41\x00")), "cut short"),
        (module((7, b"\x01" + text("f") + b"\x00\x00")), "export 'f' is function 0: the module has 0"),
        (module((7, b"\x01" + text("f") + b"\x07\x00")), "unknown kind 7"),
        (module((5, b"\x01\x00\x00"), (7, b"\x02" + (text("m") + b"\x02\x00") * 2)), "two exports are named 'm'"),
        (module((8, b"\x00")), "start function 0 does not exist"),
        (module((1, b"\x01\x60\x01\x7f\x00"), (3, b"\x01\x00"), (8, b"\x00")), "has parameters or results"),
        (module((12, b"\x01")), "data count section says 1 segments, the data section has 0"),
        (module((12, b"\xff\xff\xff\xff\x0f")), "4294967295 data segments: at most"),
        (PREAMBLE + section(0, b"\x00") * 10_001, "more than 10000 sections"),
        (module((7, b"\x01" + unsigned(100_001) + b"x" * 100_001 + b"\x00\x00")), "name of 100001 bytes"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(InvalidWasm) as caught:
        inspect(data)
    assert message in str(caught.value)


def test_long_hostile_names_are_cut_and_escaped_in_messages():
    name = "\n\x1b[31m" + "x" * 5_000
    with pytest.raises(InvalidWasm) as caught:
        inspect(module((7, b"\x01" + text(name) + b"\x00\x00")))
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_module_is_refused_or_still_a_module(wasm, engine):
    for size in range(len(wasm)):
        cut = wasm[:size]
        if accepts(engine, cut):
            inspect(cut)
        else:
            look(cut)


@pytest.mark.parametrize(
    "filler",
    [b"\0", b"\xff", b"\x01\x00", b"\x00\x01\x00", b"\x80"],
    ids=["zeros", "ones", "types", "customs", "unfinished"],
)
def test_64_mib_of_nonsense_are_refused_quickly(filler):
    data = PREAMBLE + filler * ((64 << 20) // len(filler))
    started = time.process_time()
    with pytest.raises(InvalidWasm):
        inspect(data)
    assert time.process_time() - started < 2


def test_64_mib_that_are_nearly_a_module_take_linear_time():
    long_type = b"\x60" + unsigned(1_000) + b"\x7f" * 1_000 + b"\x00"
    types = unsigned(60_000) + long_type * 60_000
    functions = unsigned(1_000_000) + b"\x00" * 1_000_000
    exports = unsigned(100) + b"".join(text(f"f{i}") + b"\x00\x00" for i in range(100))
    bodies = unsigned(1_000_000) + b"\x02\x00\x0b" * 1_000_000
    data = module((1, types), (3, functions), (7, exports), (10, bodies))
    assert len(data) > 60 << 20
    started = time.process_time()
    info = inspect(data)
    assert time.process_time() - started < 4
    assert len(info.exports) == 100
    assert info.exports[0].parameters is info.exports[-1].parameters


@pytest.mark.parametrize(
    ("count", "letters", "values", "fits"),
    [
        (25_000, "", 0, True),
        (40_000, "", 0, False),
        (10, "x" * 99_000, 0, True),
        (11, "x" * 99_000, 0, False),
        (170, "", 1_000, True),
        (180, "", 1_000, False),
    ],
)
def test_what_a_module_offers_has_a_bound_however_little_it_takes_in_the_binary(count, letters, values, fits):
    exports = unsigned(count) + b"".join(text(f"{letters}{i}") + b"\x00\x00" for i in range(count))
    signature = b"\x60" + unsigned(values) + b"\x7f" * values + b"\x00"
    data = module((1, b"\x01" + signature), (3, b"\x01\x00"), (7, exports), (10, b"\x01\x02\x00\x0b"))
    if fits:
        assert len(inspect(data).exports) == count
    else:
        with pytest.raises(InvalidWasm, match="too many"):
            inspect(data)


def test_what_a_module_needs_counts_too():
    item = text("m" * 50_000) + text("n" * 50_000) + b"\x00\x00"
    for count, fits in ((10, True), (11, False)):
        data = module((1, b"\x01\x60\x00\x00"), (2, unsigned(count) + item * count))
        if fits:
            assert len(inspect(data).imports) == count
        else:
            with pytest.raises(InvalidWasm, match="too many"):
                inspect(data)


def look(data: bytes) -> ModuleInfo | None:
    """What inspect says; anything but a module's outside or InvalidWasm fails the test."""
    try:
        return inspect(data)
    except InvalidWasm:
        return None


def accepts(engine: Engine, data: bytes) -> bool:
    try:
        engine.compile(data)
    except InvalidWasm:
        return False
    return True


# What Wasmtime takes and a guest may not have, as the messages say it.
ON_PURPOSE = (
    "one memory a guest",
    "shared memories",
    "guests may import functions only",
    "exceptions are not supported",
    "initial value",
    "function-references",
    "GC proposal",
    "page size",
    "64-bit",
)


def mutated(wasm: bytes, dice: random.Random) -> bytes:
    data = bytearray(wasm)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data)) if data else 0
        match dice.randrange(5):
            case 0 if data:
                data[at] = dice.choice((0, 1, 2, 3, 4, 0x40, 0x60, 0x64, 0x70, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 1 if data:
                data[at] ^= 1 << dice.randrange(8)
            case 2 if data:
                del data[at : at + dice.randint(1, 4)]
            case 3:
                data[at:at] = dice.randbytes(dice.randint(1, 4))
            case _:
                other = dice.randrange(len(data) + 1)
                data[at:at] = data[other : other + dice.randint(1, 16)]
    return bytes(data)


def test_whatever_wasmtime_accepts_is_read_or_refused_on_purpose(wasm, engine):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    reference = wasmtime.Engine()
    accepted = 0
    for _ in range(3_000):
        data = mutated(wasm, dice)
        valid = accepts(engine, data)
        try:
            info, said = inspect(data), ""
        except InvalidWasm as error:
            said = str(error)
        if valid and said:
            assert any(reason in said for reason in ON_PURPOSE), (seed, data.hex(), said)
        elif valid:
            accepted += 1
            assert_as_wasmtime_says(info, reference, data, seed)
    assert accepted > 50, seed


def assert_as_wasmtime_says(info: ModuleInfo, reference: wasmtime.Engine, data: bytes, seed: int) -> None:
    theirs = wasmtime.Module(reference, data)
    exports = [item for item in theirs.exports if isinstance(item.type, wasmtime.FuncType)]
    assert [item.name for item in info.exports] == [item.name for item in exports], (seed, data.hex())
    assert [(i.module, i.name) for i in info.imports] == [(i.module, i.name) for i in theirs.imports], (
        seed,
        data.hex(),
    )
    for ours, item in zip((*info.imports, *info.exports), (*theirs.imports, *exports), strict=True):
        for names, types in ((ours.parameters, item.type.params), (ours.results, item.type.results)):
            # Wasmtime's C API aborts the process when asked for the kind of a v128.
            theirs_named = [
                kind if kind == "v128" else str(kind_of) for kind, kind_of in zip(names, types, strict=True)
            ]
            assert [kind.replace("externref", "anyref") for kind in names] == theirs_named, (seed, data.hex())


def test_random_bytes_never_raise_anything_else():
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(20_000):
        body = dice.randbytes(dice.randrange(60))
        look(PREAMBLE + body)
        look(PREAMBLE + section(dice.randrange(14), body))
