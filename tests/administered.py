"""A real node behind a real server, with tokens, and guests that stay where they are told to."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from contextlib import contextmanager

from serving import Running
from tensor_wasm.abi import CUDA_MODULES
from tensor_wasm.config import load
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS
from tensor_wasm.http import Server
from tensor_wasm.node import Node
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
TOKENS = "boss:role=admin;one:tenant=1;two:tenant=2;both:tenant=1,2;all:tenant=*"
PATIENCE_S = 20.0
PTX_AT, ENTRY_AT = 1024, 16
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry forever()
{
    .reg .u32 %r<2>;
    mov.u32 %r1, 0;
AGAIN:
    add.u32 %r1, %r1, 1;
    bra AGAIN;
}
.visible .entry nothing()
{
    ret;
}
"""


def guest() -> bytes:
    """Exports that return: ``nothing``, ``add``, ``grow(pages)``, ``alloc(bytes)``, ``load``, ``busy(n)``; and that do
    not: ``spin``, ``sleep`` (an hour, in the host), ``kernel`` (an endless one)."""
    module = Module()
    poll = module.import_function("wasi_snapshot_preview1", "poll_oneoff", [I32] * 4, [I32])
    load_ptx = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    allocate = module.import_function(CUDA_MODULES[0], "wasi_cuda_alloc", [I32, I32], [I64])
    module.memory(2, export="memory")
    hour_ns = 3600 * 10**9
    module.data(struct.pack("<QB7xI4xQQH6x", 1, 0, 1, hour_ns, 0, 0), 256)
    module.data(b"forever", ENTRY_AT)
    module.data(b"nothing", ENTRY_AT + 16)
    module.data(PTX, PTX_AT)
    module.function([], [], export="nothing")
    add = module.function([I32, I32], [I32], export="add")
    for parameter in add.parameters:
        add.code.get(parameter)
    add.code.op("i32.add")
    grow = module.function([I32], [I32], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()
    alloc = module.function([I32], [I64], export="alloc")
    alloc.code.get(alloc.parameters[0])
    alloc.code.i32_const(0)
    alloc.code.call(allocate)
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)
    sleep = module.function([], [], export="sleep").code
    for value in (256, 512, 1, 768):
        sleep.i32_const(value)
    sleep.call(poll)
    sleep.op("drop")
    for export, entry in (("kernel", ENTRY_AT), ("launch", ENTRY_AT + 16)):
        body = module.function([], [I32], export=export).code
        for value in (PTX_AT, len(PTX), entry, 7):
            body.i32_const(value)
        body.call(load_ptx)
        for value in (1, 1, 1, 1, 1, 1, 0, 0, 0):
            body.i32_const(value)
        body.call(launch)
    load_only = module.function([], [I64], export="load").code
    for value in (PTX_AT, len(PTX), ENTRY_AT, 7):
        load_only.i32_const(value)
    load_only.call(load_ptx)
    return module.encode().wasm


class Administered(Running):
    """A server whose requests name who asks: ``who`` is a token, ``tenant`` the header's."""

    def call(self, method, path, value=None, *, who="boss", tenant=None):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who}"}
        if tenant is not None:
            headers["X-TensorWasm-Tenant"] = str(tenant)
        body = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.request(method, path, body, headers)

    def deploy(self, who="one", tenant=None, name="guest", wasm=None):
        value = {"name": name, "wasm_b64": base64.b64encode(wasm or guest()).decode()}
        answer = self.call("POST", "/functions", value, who=who, tenant=tenant)
        assert answer.status == 201, answer.body
        return answer.json["id"]

    def run(self, function, export, args=(), *, who="one", tenant=None, **more):
        value = {"export": export, "args": list(args), **more}
        return self.call("POST", f"/functions/{function}/invoke", value, who=who, tenant=tenant)

    def instances(self, query=""):
        answer = self.call("GET", f"/admin/instances{query}")
        assert answer.status == 200, answer.body
        return answer.json["instances"]

    def wait_for(self, is_so, what):
        until = time.monotonic() + PATIENCE_S
        while True:
            found = is_so()
            if found:
                return found
            assert time.monotonic() < until, what
            time.sleep(0.005)

    def in_state(self, state, count=1):
        """Wait for ``count`` instances in a state; all of them."""

        def found():
            matching = [instance for instance in self.instances() if instance["state"] == state]
            return matching if len(matching) >= count else None

        return self.wait_for(found, f"no {count} instances are {state}")


class Background:
    """Invocations that run beside the test; ``answers`` when they have ended."""

    def __init__(self, server):
        self._server = server
        self._threads = []
        self.answers = []

    def run(self, *args, **more):
        thread = threading.Thread(target=self._run, args=(args, more))
        thread.start()
        self._threads.append(thread)

    def join(self):
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "an invocation did not end"
        return self.answers

    def _run(self, args, more):
        self.answers.append(self._server.run(*args, **more))


@contextmanager
def administered(home, **overrides):
    settings = {"home": home, "listen_addr": "127.0.0.1:0", "drain_s": 2, "api_tokens": TOKENS, "workers": 8}
    config = load({}, settings | overrides).config
    with Node(config) as node:
        server = Server(node, config)
        server.start_in_thread()
        try:
            yield Administered(node, server)
        finally:
            server.stop()
