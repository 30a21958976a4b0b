import math
import random
import struct

import pytest
import wasmtime

from tensor_wasm.errors import InvalidWasm
from tensor_wasm.runtime import Budget, CallFailed, Store
from tensor_wasm.wasm import Body, Module, ValType, opcodes
from tensor_wasm.wasm.leb import signed, unsigned

I32, I64, F32, F64, V128 = ValType.I32, ValType.I64, ValType.F32, ValType.F64, ValType.V128


@pytest.fixture
def store(engine):
    store = Store(engine, Budget(64 << 20))
    yield store
    store.close()


def names(kinds) -> list[str]:
    return [kind.name.lower() for kind in kinds]


def run(store, module, *arguments, export="f", imports=()):
    """Instantiate the module in the store and call an export of one signature's numbers."""
    function = next(f for f in module._functions if f.name == export)
    instance = store.instantiate(store.engine.compile(module.encode().wasm), list(imports))
    return store.call(
        instance.function(export), names(function.type.parameters), arguments, names(function.type.results)
    )


def one(parameters, results, write) -> Module:
    """A module with a memory and one function `f`."""
    module = Module()
    module.memory(1)
    write(module.function(parameters, results, export="f").code)
    return module


# --- the opcode tables ----------------------------------------------------------------------------------------


def all_instructions():
    """(text, method that writes it) for every entry of every table."""
    for name in opcodes.PLAIN:
        yield name, lambda body, name=name: body.op(name)
    for name in opcodes.MEMORY:
        yield f"{name} offset=300", lambda body, name=name: body.memory(name, offset=300)
        if "atomic" not in name:
            yield f"{name} align=1", lambda body, name=name: body.memory(name, align=0)
    for name in opcodes.LANE:
        yield f"{name} 1", lambda body, name=name: body.lane(name, 1)
    for name in opcodes.MEMORY_LANE:
        yield f"{name} offset=7 1", lambda body, name=name: body.memory_lane(name, 1, 7)


def polymorphic(instructions) -> Module:
    """A function for each instruction, after `unreachable`, where operands may be anything."""
    module = Module()
    module.memory(1)
    signature = [], []
    for _, write in instructions:
        body = module.function(*signature).code
        body.op("unreachable")
        write(body)
        body.op("unreachable")
    return module


def assembled(texts) -> bytes:
    functions = "\n".join(f"(func unreachable {text} unreachable)" for text in texts)
    return bytes(wasmtime.wat2wasm(f"(module (memory 1) {functions})"))


def test_the_tables_hold_the_whole_instruction_set():
    assert len(opcodes.PLAIN) > 350
    assert len(opcodes.MEMORY) == 23 + 14 + 3 + 14 + 49
    assert len(opcodes.LANE) == 14
    assert len(opcodes.MEMORY_LANE) == 8


def test_every_instruction_encodes_as_wasmtime_s_assembler_encodes_it():
    instructions = list(all_instructions())
    ours = polymorphic(instructions).encode().wasm
    theirs = assembled(text for text, _ in instructions)
    if ours != theirs:
        different = [
            text for text, write in instructions if polymorphic([(text, write)]).encode().wasm != assembled([text])
        ]
        pytest.fail(f"{len(different)} instructions differ: {different[:20]}")


def test_every_instruction_is_one_the_engine_s_validator_knows(engine):
    unknown = []
    for text, write in all_instructions():
        try:
            engine.compile(polymorphic([(text, write)]).encode().wasm)
        except InvalidWasm as error:
            unknown.append((text, str(error)))
    assert unknown == []


def test_no_two_instructions_share_an_encoding():
    codes = [*opcodes.PLAIN.values(), *opcodes.LANE.values()]
    codes += [code for code, _ in (*opcodes.MEMORY.values(), *opcodes.MEMORY_LANE.values())]
    assert len(codes) == len(set(codes))


# --- LEB128 ---------------------------------------------------------------------------------------------------


def decode(data: bytes, *, is_signed: bool) -> int:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
    if is_signed and data[-1] & 0x40:
        value -= 1 << shift
    return value


@pytest.mark.parametrize("power", [0, 6, 7, 8, 13, 14, 21, 31, 32, 35, 62, 63, 64])
def test_leb_numbers_read_back_around_every_power_of_two(power):
    for delta in (-2, -1, 0, 1, 2):
        value = (1 << power) + delta
        if value >= 0:
            assert decode(unsigned(value), is_signed=False) == value
        for number in (value, -value):
            assert decode(signed(number), is_signed=True) == number


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (63, "3f"), (64, "c000"), (-64, "40"), (-65, "bf7f"), (-1, "7f"), (2**31 - 1, "ffffffff07")],
)
def test_signed_leb_takes_the_fewest_bytes(value, data):
    assert signed(value).hex() == data


def test_unsigned_leb_refuses_negative_numbers():
    with pytest.raises(ValueError, match="-1"):
        unsigned(-1)


# --- constants ------------------------------------------------------------------------------------------------

EDGES_32 = [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, 2**31 - 1, -(2**31), 2**31, 2**32 - 1]
EDGES_64 = [*EDGES_32, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]


@pytest.mark.parametrize("value", EDGES_32)
def test_i32_constants_of_either_signedness(store, value):
    assert run(store, one([], [I32], lambda body: body.i32_const(value)))[0] & 0xFFFFFFFF == value & 0xFFFFFFFF


@pytest.mark.parametrize("value", EDGES_64)
def test_i64_constants_of_either_signedness(store, value):
    assert run(store, one([], [I64], lambda body: body.i64_const(value)))[0] & (2**64 - 1) == value & (2**64 - 1)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1.7976931348623157e308])
def test_float_constants_keep_their_bits(store, value):
    def write(body):
        body.f64_const(value)
        body.op("i64.reinterpret_f64")

    assert run(store, one([], [I64], write))[0] & (2**64 - 1) == struct.unpack("<Q", struct.pack("<d", value))[0]


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFC12345, 0x80000000, 1])
def test_f32_bits_keep_nan_payloads(store, bits):
    def write(body):
        body.f32_bits(bits)
        body.op("i32.reinterpret_f32")

    assert run(store, one([], [I32], write))[0] & 0xFFFFFFFF == bits


def test_f64_bits_keep_nan_payloads(store):
    def write(body):
        body.f64_bits(0x7FF0000000000123)
        body.op("i64.reinterpret_f64")

    assert run(store, one([], [I64], write))[0] == 0x7FF0000000000123


def test_vector_constants_and_shuffles_keep_lane_order(store):
    def write(body):
        body.v128_const(bytes(range(16)))
        body.v128_const(bytes(range(16, 32)))
        body.shuffle([31, 0, 16, 15, *[0] * 12])
        body.lane("i32x4.extract_lane", 0)

    assert run(store, one([], [I32], write)) == [0x0F10001F]


@pytest.mark.parametrize("lanes", [[], [0] * 15, [0] * 17])
def test_a_shuffle_of_other_than_16_lanes_is_refused(lanes):
    with pytest.raises(ValueError, match="16"):
        Body([], []).shuffle(lanes)


# --- control --------------------------------------------------------------------------------------------------


def test_a_loop_with_locals_sums(store):
    module = Module()
    function = module.function([I32], [I64], export="f")
    body = function.code
    (count,) = function.parameters
    total = body.local(I64)
    with body.block() as done, body.loop() as again:
        body.get(count)
        body.op("i32.eqz")
        body.br_if(done)
        body.get(total)
        body.get(count)
        body.op("i64.extend_i32_u", "i64.add")
        body.set(total)
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.set(count)
        body.br(again)
    body.get(total)
    assert run(store, module, 100_000) == [5_000_050_000]


def test_a_branch_table_takes_its_target_or_the_default(engine, store):
    module = Module()
    function = module.function([I32], [I32], export="f")
    body = function.code
    with body.block() as default, body.block() as second:
        with body.block() as first:
            body.get(function.parameters[0])
            body.br_table([first, second], default)
        body.i32_const(10)
        body.op("return")
    body.i32_const(30)
    # `default` and `second` end at the same place but differ by what runs between them.
    wasm = module.encode().wasm
    instance = store.instantiate(engine.compile(wasm), [])
    call = instance.function("f")
    assert [store.call(call, ["i32"], [n], ["i32"])[0] for n in (0, 1, 2, -1)] == [10, 30, 30, 30]


def test_if_else_with_a_result_and_a_branch_out_of_the_function(store):
    module = Module()
    function = module.function([I32], [F64], export="f")
    body = function.code
    body.get(function.parameters[0])
    with body.if_(F64):
        body.f64_const(2.5)
        body.br(body.function_label)
        body.else_()
        body.f64_const(-1.0)
    body.f64_const(0.5)
    body.op("f64.add")
    assert run(store, module, 1) == [2.5]
    assert run(store, module, 0) == [-0.5]


def test_a_block_with_a_signature_takes_and_gives_several_values(store):
    module = Module()
    swap = module.type([I32, I64], [I64, I32])
    function = module.function([I32, I64], [I64, I32], export="f")
    body = function.code
    a, b = function.parameters
    body.get(a)
    body.get(b)
    with body.block(swap):
        body.op("drop", "drop")
        body.get(b)
        body.get(a)
    assert run(store, module, 7, 8) == [8, 7]


def test_blocks_must_close_in_order_and_before_the_end():
    body = Body([], [])
    outer, inner = body.block(), body.block()
    with pytest.raises(ValueError, match="reverse order"):
        body.end(outer)
    with pytest.raises(ValueError, match="2 blocks"):
        body.finish()
    body.end(inner)
    with pytest.raises(ValueError, match="closed"):
        body.br(inner)
    with pytest.raises(ValueError, match="reverse order"):
        body.end(body.function_label)


def test_released_locals_are_given_out_again_by_type():
    body = Body([I32], [])
    first = body.local(F32)
    body.release(first)
    assert body.local(I64) != first
    assert body.local(F32) is first
    assert body.local(F32).index == 3


def test_an_error_inside_a_block_is_not_hidden():
    body = Body([], [])
    with pytest.raises(ZeroDivisionError), body.block():
        1 / 0  # noqa: B018


def test_more_than_128_locals_and_types_in_runs(store):
    module = Module()
    body = module.function([], [I64], export="f").code
    locals_ = [body.local((I32, I64, F32)[i // 100 % 3]) for i in range(700)]
    target = next(local for local in reversed(locals_) if local.type is I64)
    body.i64_const(77)
    body.tee(target)
    body.op("drop")
    body.get(target)
    assert run(store, module) == [77]


# --- modules --------------------------------------------------------------------------------------------------


def test_imports_come_first_in_their_index_space(engine, store):
    provider = Module()
    provider.memory(3, export="memory")
    provider.table(4, export="table")
    provider.global_(I64, 41, mutable=False, export="number")
    double = provider.function([I32], [I32], export="double")
    double.code.get(double.parameters[0])
    double.code.i32_const(2)
    double.code.op("i32.mul")
    given = store.instantiate(engine.compile(provider.encode().wasm), [])

    module = Module()
    doubled = module.import_function("p", "double", [I32], [I32])
    memory = module.import_memory("p", "memory")
    table = module.import_table("p", "table", 4)
    number = module.import_global("p", "number", I64)
    own = module.memory(1, 2)
    own_table = module.table(2, 2)
    function = module.function([], [I32, I32, I64, I32, I32], export="f")
    assert (doubled.index, function.index, memory.index, own.index, own_table.index) == (0, 1, 0, 1, 1)
    body = function.code
    body.i32_const(21)
    body.call(doubled)
    body.memory_size(memory.index)
    body.global_get(number)
    body.table_size(table.index)
    body.memory_size(own.index)
    externs = [given.extern(name) for name in ("double", "memory", "table", "number")]
    assert run(store, module, imports=externs) == [42, 3, 41, 4, 1]


def test_an_import_after_a_definition_of_its_kind_is_refused():
    module = Module()
    module.function([])
    module.import_memory("m", "memory")  # another index space
    with pytest.raises(ValueError, match="imports come before"):
        module.import_function("m", "f", [])


def test_an_imported_function_has_no_code():
    function = Module().import_function("m", "f", [])
    with pytest.raises(ValueError, match=r"m\.f is imported"):
        _ = function.code


def test_equal_signatures_share_a_type():
    module = Module()
    assert module.type([I32], [I64]) is module.type([I32], [I64])
    assert module.type([I32], [I64]) is not module.type([I32], [F64])


def test_globals_of_every_number_type_start_at_their_value(store):
    module = Module()
    values = {I32: -5, I64: 2**63, F32: 0.5, F64: -0.25}
    variables = [module.global_(kind, value) for kind, value in values.items()]
    module.global_(V128, 3)
    module.global_(ValType.EXTERNREF)
    body = module.function([], [I32, I64, F32, F64], export="f").code
    body.i32_const(9)
    body.op("drop")
    for variable in variables:
        body.global_get(variable)
    assert run(store, module) == [-5, -(2**63), 0.5, -0.25]


def test_a_start_function_runs_and_sets_a_global(engine, store):
    module = Module()
    variable = module.global_(I32, 1)
    setup = module.function([])
    setup.code.i32_const(99)
    setup.code.global_set(variable)
    module.start(setup)
    module.function([], [I32], export="f").code.global_get(variable)
    assert run(store, module) == [99]


def test_data_in_either_memory_and_passive_data(store):
    module = Module()
    first, second = module.memory(1), module.memory(1)
    module.data(b"\x11\x22", 8)
    module.data(b"\x33\x44", 8, memory=second.index)
    passive = module.data(b"\x55\x66\x77\x88")
    body = module.function([], [I32, I32, I32, I32], export="f").code
    for destination, offset, size in ((16, 1, 2),):
        body.i32_const(destination)
        body.i32_const(offset)
        body.i32_const(size)
    body.memory_init(passive, second.index)
    body.data_drop(passive)
    body.i32_const(32)
    body.i32_const(8)
    body.i32_const(2)
    body.memory_copy(first.index, second.index)
    body.i32_const(40)
    body.i32_const(0xAB)
    body.i32_const(2)
    body.memory_fill(first.index)
    for address, memory in ((8, 0), (16, 1), (32, 0), (40, 0)):
        body.i32_const(address)
        body.memory("i32.load16_u", memory=memory)
    assert run(store, module) == [0x2211, 0x7766, 0x4433, 0xABAB]


def test_indirect_calls_through_either_table(store):
    module = Module()
    tables = [module.table(2), module.table(3)]
    signature = module.type([], [I32])
    answers = []
    for number in (5, 6, 7):
        function = module.function([], [I32])
        function.code.i32_const(number)
        answers.append(function)
    module.elements(tables[0], 1, answers[:1])
    module.elements(tables[1], 0, answers[1:])
    body = module.function([], [I32, I32, I32], export="f").code
    for table, place in ((0, 1), (1, 0), (1, 1)):
        body.i32_const(place)
        body.call_indirect(signature, table)
    assert run(store, module) == [5, 6, 7]


def test_references_are_stored_grown_and_compared(store):
    module = Module()
    table = module.table(1, 10)
    target = module.function([], [])
    module.declare([target])
    body = module.function([], [I32, I32, I32], export="f").code
    body.i32_const(0)
    body.ref_func(target)
    body.table_set(table.index)
    body.i32_const(0)
    body.table_get(table.index)
    body.op("ref.is_null")
    body.ref_null()
    body.i32_const(4)
    body.table_grow(table.index)
    body.ref_null()
    body.ref_null()
    body.i32_const(0)
    body.select_typed(ValType.FUNCREF)
    body.op("ref.is_null")
    assert run(store, module) == [0, 1, 1]


def test_memory_grows_to_its_maximum_and_not_past_it(store):
    module = Module()
    module.memory(1, 2)
    body = module.function([], [I32, I32, I32], export="f").code
    for pages in (1, 1):
        body.i32_const(pages)
        body.memory_grow()
    body.memory_size()
    assert run(store, module) == [1, -1, 2]


def test_shared_memories_need_a_maximum(engine):
    with pytest.raises(ValueError, match="maximum"):
        Module().memory(1, shared=True)
    module = Module()
    module.memory(1, 2, shared=True)
    engine.compile(module.encode().wasm)


def test_exports_name_what_they_export(engine, store):
    module = Module()
    memory = module.memory(1)
    table = module.table(1)
    variable = module.global_(I32, 4)
    function = module.function([])
    for name, item in (("m", memory), ("t", table), ("g", variable), ("ƒ", function)):
        module.export(name, item)
    instance = store.instantiate(engine.compile(module.encode().wasm), [])
    kinds = {name: instance.extern(name).kind for name in ("m", "t", "g", "ƒ")}
    assert kinds == {"ƒ": 0, "g": 1, "t": 2, "m": 3}


def test_a_trap_s_offset_finds_its_source_line(engine, store):
    module = Module()
    module.memory(1)
    function = module.function([I32], [], export="f")
    body = function.code
    with body.block():
        body.mark(10)
        body.get(function.parameters[0])
        body.op("drop")
        body.mark(11)
        body.mark(12)  # nothing between: line 11 has no code
        body.i32_const(-1)
        body.memory("i32.load")
        body.op("drop")
        body.mark(12)
        body.op("nop")
        body.mark(13)
    encoded = module.encode()
    instance = store.instantiate(engine.compile(encoded.wasm), [])
    with pytest.raises(CallFailed) as caught:
        store.call(instance.function("f"), ["i32"], [0], [])
    offset = caught.value.failure.frames[0].module_offset
    assert [line for at, line in encoded.lines if at <= offset][-1] == 12
    assert [line for _, line in encoded.lines] == [0, 10, 12, 13]


def test_a_big_module_keeps_its_function_indices(store):
    module = Module()
    functions = []
    for number in range(2_000):
        function = module.function([], [I32], name=f"number {number}")
        function.code.i32_const(number * 7)
        functions.append(function)
    body = module.function([], [I32], export="f").code
    body.call(functions[1_999])
    assert run(store, module) == [13_993]


def test_random_straight_line_arithmetic_gives_python_s_result(engine, store):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    operators = {
        "i64.add": lambda a, b: a + b,
        "i64.sub": lambda a, b: a - b,
        "i64.mul": lambda a, b: a * b,
        "i64.and": lambda a, b: a & b,
        "i64.or": lambda a, b: a | b,
        "i64.xor": lambda a, b: a ^ b,
        "i64.shl": lambda a, b: a << (b & 63),
        "i64.shr_u": lambda a, b: a >> (b & 63),
    }
    mask = 2**64 - 1
    for _ in range(50):
        module = Module()
        body = module.function([], [I64], export="f").code
        expected = dice.choice(EDGES_64) & mask
        body.i64_const(expected)
        for _ in range(dice.randint(1, 60)):
            name = dice.choice(list(operators))
            operand = dice.choice((dice.getrandbits(64), dice.choice(EDGES_64))) & mask
            body.i64_const(operand)
            body.op(name)
            expected = operators[name](expected, operand) & mask
        assert run(store, module)[0] & mask == expected, seed
