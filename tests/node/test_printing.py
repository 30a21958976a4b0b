"""What kernels print comes to an invocation's stderr, however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensor_wasm.abi import CUDA_MODULES, Tag, pack
from tensor_wasm.errors import DeadlineExceeded, GuestTrap, KernelFault
from tensor_wasm.node import Node
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
CALLS = (Path(__file__).parents[1] / "kernels" / "calls.ptx").read_bytes()


def guest(entry: bytes, argv: bytes, block: int, then: str = "") -> bytes:
    """``run`` loads a kernel of calls.ptx, launches it, and calls the host no more; ``then`` it may trap or spin."""
    module = Module()
    load = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", [I64] + [I32] * 9, [I32])
    module.memory(2, export="memory")
    module.data(CALLS, 1024)
    module.data(entry, 0)
    module.data(argv, 512)
    body = module.function([], [I32], export="run").code
    for value in (1024, len(CALLS), 0, len(entry)):
        body.i32_const(value)
    body.call(load)
    for value in (1, 1, 1, block, 1, 1, 0, 512, len(argv)):
        body.i32_const(value)
    body.call(launch)
    if then == "trap":
        body.op("unreachable")
    elif then == "spin":
        with body.loop() as again:
            body.br(again)
    return module.encode().wasm


def often(count: int, block: int = 1, then: str = "") -> bytes:
    return guest(b"tell_often", pack([(Tag.I32, count)]), block, then)


def test_it_is_there_when_the_function_returns(node: Node) -> None:
    result = node.invocations.invoke(node.functions.deploy("often", often(2)).id)
    assert result.results == [0]
    assert result.stderr == b"round 0 of thread 0\nround 1 of thread 0\n"


def test_the_limit_on_a_functions_output_holds_for_it(node: Node) -> None:
    result = node.invocations.invoke(node.functions.deploy("often", often(500)).id)
    assert len(result.stderr) == 1000
    assert result.dropped_output_bytes > 0


@pytest.mark.parametrize(("then", "ending"), [("trap", GuestTrap), ("spin", DeadlineExceeded)])
def test_it_is_told_when_the_function_does_not_return(node: Node, then: str, ending: type[Exception]) -> None:
    function = node.functions.deploy("often", often(1, then=then))
    with pytest.raises(ending, match="stderr: round 0 of thread 0"):
        node.invocations.invoke(function.id, deadline_s=3.0)


def test_a_failed_assertion_is_the_functions_ending(node: Node) -> None:
    # The kernel reads zeros, and 0 < 0 does not hold.
    function = node.functions.deploy("insist", guest(b"insist", pack([(Tag.POINTER, 100_000, 64), (Tag.I32, 0)]), 4))
    with pytest.raises(KernelFault) as caught:
        node.invocations.invoke(function.id)
    assert "assertion `values[i] < n` failed at calls.cu:" in str(caught.value)
    assert "stderr: calls.cu:" in str(caught.value)
