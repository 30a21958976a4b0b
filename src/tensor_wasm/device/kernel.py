"""A kernel of an opened device: its parameters, and launching it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device import shape
from tensor_wasm.device.array import DeviceArray, check_array
from tensor_wasm.device.scalars import POINTER_KINDS, described, expected, scalar_bytes
from tensor_wasm.device.session_protocol import Arguments, Session, SessionKernel
from tensor_wasm.errors import KernelArgumentError

_NS_PER_S = 1_000_000_000
_TIMEOUT_MAX_S = 1e9

#: Not written as a union where it is used: that would be made anew for each argument.
_ARRAYS = (np.ndarray, DeviceArray)


class KernelParameter(NamedTuple):
    """A parameter of a kernel: name and PTX type as in the text, size in bytes.

    The type of a struct passed by value is ``b8[16]``, with its size.
    """

    name: str
    type: str
    size: int


class Kernel:
    """A kernel on a device; :meth:`tensor_wasm.OpenDevice.load_ptx` makes one.

    Its own variables (``__device__`` and ``__constant__`` in CUDA C) live as long as it does, and are not shared with
    other kernels, those of the same text included.

    Attributes:
        name: The entry's name in the PTX text.
        parameters: What :meth:`launch` takes, in order.
    """

    def __init__(self, device: object, session: Session, kernel: SessionKernel) -> None:
        self._device = device  # open as long as its kernels are in use
        self._facts = facts = kernel.facts
        self.name = facts.name
        self.parameters = tuple(KernelParameter(p.name, p.kind, p.size_bytes) for p in facts.parameters)
        self._session = session
        self._kernel = kernel
        self._shared_bytes_max = session.info.max_shared_bytes

    def launch(
        self,
        grid: shape.Extent,
        block: shape.Extent,
        args: Sequence[object] = (),
        shared_mem: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> None:
        """Run the kernel once, and return when it has ended.

        An argument is a NumPy array (C-contiguous) or a :class:`DeviceArray`, passed as a pointer to its first
        element; a NumPy scalar of exactly the parameter's width and kind; a Python ``int`` or ``float``, which takes
        the parameter's type; or ``bytes`` for a struct. Writable NumPy arrays hold afterwards what the kernel wrote.
        Arrays that share memory share it on the device.

        Args:
            grid: Blocks, x or up to three axes.
            block: Threads in a block, likewise.
            args: One for each of ``parameters``.
            shared_mem: Bytes of dynamic shared memory.
            timeout: Seconds after which the launch is ended, None for never. Looked at 20 times a second.

        Raises:
            KernelArgumentError: Something does not fit; nothing has run.
            CapacityExhausted: The arrays do not fit the device's memory; nothing has run.
            KernelFault: The kernel failed; the message names kernel and PTX line, and on the CPU block and thread.
            DeadlineExceeded: ``timeout`` came.
            KernelError: The device, or a device array, is closed; the GPU lost a device array, or cannot launch this.
            DeviceRestarting: Another launch cost this one the GPU; try again.

        What the kernel printed (``printf``, failed assertions) is written to ``sys.stderr`` when it has ended.
        After a failed run NumPy arrays are as they were before. Ctrl-C ends a launch with ``KeyboardInterrupt``.
        """
        deadline_ns = _deadline_ns(timeout)
        grid_axes = shape.axes("grid", grid, shape.GRID_MAX)
        block_axes = shape.axes("block", block, shape.BLOCK_MAX)
        shape.check_block(self.name, block_axes, self._facts.reqntid, self._facts.maxntid)
        shared_bytes = shape.shared_bytes(shared_mem, self._shared_bytes_max)
        self._kernel.launch(grid_axes, block_axes, shared_bytes, self._check(args), deadline_ns)

    def _check(self, args: Sequence[object]) -> Arguments:
        """Arguments by value in the parameter block, arrays noted. Raises :class:`KernelArgumentError`."""
        facts = self._facts
        if not isinstance(args, Sequence) or len(args) != len(facts.parameters):
            given = f"{len(args)}" if isinstance(args, Sequence) else described(args)
            inside = ", ".join(f"{parameter.name}: {parameter.kind}" for parameter in facts.parameters)
            raise KernelArgumentError(
                f"{self.name} takes {len(facts.parameters)} arguments in a list, not {given}: ({inside})"
            )
        arguments = Arguments(facts.parameter_bytes)
        for position, (parameter, argument) in enumerate(zip(facts.parameters, args, strict=True)):
            try:
                self._check_one(position, parameter, argument, arguments)
            except KernelArgumentError as error:
                label = f"argument {position} ({parameter.name}, {parameter.kind}) of {self.name}"
                raise KernelArgumentError(f"{label}: {error}") from None
        return arguments

    def _check_one(self, position: int, parameter: ParameterLayout, argument: object, arguments: Arguments) -> None:
        if not isinstance(argument, _ARRAYS):
            start = parameter.offset
            arguments.block[start : start + parameter.size_bytes] = scalar_bytes(parameter, argument)
            return
        if parameter.kind not in POINTER_KINDS:
            raise KernelArgumentError(f"it takes {expected(parameter)}, not {described(argument)}")
        if isinstance(argument, np.ndarray):
            check_array(argument)
            arguments.arrays.append((position, argument))
        else:
            arguments.kept.append((position, argument.kept_in(self._session)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{parameter.name}: {parameter.type}" for parameter in self.parameters)
        return f"<Kernel {self.name}({inside})>"


def _deadline_ns(timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not math.isfinite(timeout) or not 0 < timeout <= _TIMEOUT_MAX_S:
        raise KernelArgumentError(f"timeout must be a number of seconds above 0, not {described(timeout)}")
    return time.monotonic_ns() + int(timeout * _NS_PER_S)
