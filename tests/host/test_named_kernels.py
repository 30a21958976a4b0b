"""`wasi_cuda_load_named`: each refusal with its code, in order; guests on a real node load what is published."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing

import pytest
from blake3 import blake3

from administered import administered
from host.rig import HostRig
from tensor_wasm.abi import CUDA_3_MODULE, Tag, pack, signatures
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS
from tensor_wasm.errors import BadSignature, StoreError
from tensor_wasm.host import PublishedKernel
from tensor_wasm.store.signing import SigningKey
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
KEY = SigningKey.generate()
NOT_AVAILABLE, INVALID_POINTER, UNKNOWN, REFUSED, QUOTA, INTERNAL, INVALID = -1, -2, -3, -4, -6, -7, -9
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry store(.param .u64 p)
{
    .reg .u64 %d<2>;
    ld.param.u64 %d1, [p];
    st.global.u32 [%d1], 42;
    ret;
}
.visible .entry hidden() { ret; }
"""


@pytest.fixture
def rig(engine, tmp_path):
    made = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE)
    yield made
    made.close()


def lend(rig, published):
    """Have the guest's host find kernels with a function of (tenant, name, version)."""
    services = rig.guest.services
    rig.guest.services = type(services)(services.device, services.gates, services.ledger, published)


def load(rig, name=b"scale", version=b"1.0", entry=b"store"):
    places = []
    for at, text in ((100, name), (500, version), (900, entry)):
        rig.write(at, text)
        places += [at, len(text)]
    return rig.call("wasi_cuda_load_named", *places)


def test_a_published_kernel_is_loaded_and_runs(rig):
    asked = []

    def published(tenant, name, version):
        asked.append((tenant, name, version))
        return PublishedKernel(PTX, ("store",))

    lend(rig, published)
    kernel = load(rig)
    assert kernel >= 0
    assert asked == [(rig.guest.tenant, "scale", "1.0")]
    rig.write(2000, pack([(Tag.POINTER, 4096, 4)]))
    argv_bytes = len(pack([(Tag.POINTER, 4096, 4)]))
    assert rig.call("wasi_cuda_launch", kernel, 1, 1, 1, 1, 1, 1, 0, 2000, argv_bytes) == 0
    assert rig.read(4096, 4) == b"\x2a\0\0\0"
    assert rig.call("wasi_cuda_unload", kernel) == 0


def test_refusals_come_in_the_order_of_the_contract(rig):
    lend(rig, lambda tenant, name, version: None)
    call = "wasi_cuda_load_named"
    end = 2 << 16
    assert rig.call(call, 0, -1, 0, 257, 0, 1) == INVALID_POINTER
    assert rig.call(call, 0, 257, 0, -1, 0, 1) == QUOTA
    assert "name may have 256 bytes, not 257" in rig.last_error()
    assert rig.call(call, 0, 1, 0, -1, 0, 257) == INVALID_POINTER
    assert rig.call(call, 0, 1, 0, 257, 0, -1) == QUOTA
    assert rig.call(call, 0, 1, 0, 1, 0, -(1 << 31)) == INVALID_POINTER
    assert rig.call(call, 0, 1, 0, 1, 0, 257) == QUOTA
    for place in range(3):
        places = [100, 1, 100, 1, 100, 1]
        places[2 * place] = end
        assert rig.call(call, *places) == INVALID_POINTER
        places[2 * place] = -1
        assert rig.call(call, *places) == INVALID_POINTER
    for place in range(3):
        texts = [b"a", b"b", b"c"]
        texts[place] = b"\xff"
        assert load(rig, *texts) == INVALID
    assert "UTF-8" in rig.last_error()
    assert load(rig) == UNKNOWN
    assert "no scale 1.0" in rig.last_error()


def test_what_is_not_trusted_or_cannot_be_read_says_so_without_paths(rig):
    def refuse(*_):
        raise BadSignature("the publisher's key is not on the list")

    lend(rig, refuse)
    assert load(rig) == REFUSED
    assert "publisher's key" in rig.last_error()

    def fail(*_):
        raise StoreError("artifact is missing from /srv/home/artifacts")

    lend(rig, fail)
    assert load(rig) == INTERNAL
    assert "/srv" not in rig.last_error()


def test_only_what_the_publisher_signed_can_be_chosen(rig):
    lend(rig, lambda *_: PublishedKernel(PTX, ("store",)))
    for entry in (b"hidden", b"", b"missing"):
        assert load(rig, entry=entry) == REFUSED
        assert rig.last_error() == "no such entry in the kernel's manifest; it has store"
    lend(rig, lambda *_: PublishedKernel(b"not ptx", ("store",)))
    assert load(rig) == REFUSED
    assert "malformed PTX" in rig.last_error()


def test_kernels_by_name_count_as_others_do(rig):
    lend(rig, lambda *_: PublishedKernel(PTX, ("store",)))
    kernels = [load(rig) for _ in range(256)]
    assert len(set(kernels)) == 256
    assert min(kernels) >= 0
    assert load(rig) == QUOTA
    assert "256 kernels" in rig.last_error()


def test_a_tenant_without_the_device_loads_nothing(engine, tmp_path):
    rig = HostRig(engine, tmp_path, cuda_module=CUDA_3_MODULE, capable=False)
    lend(rig, lambda *_: PublishedKernel(PTX, ("store",)))
    assert load(rig) == NOT_AVAILABLE
    rig.close()


def test_only_0_3_0_has_it():
    assert [name for name in signatures("wasi:cuda/host@0.2.0") if "named" in name] == []
    assert signatures(CUDA_3_MODULE)["wasi_cuda_load_named"].parameters == ("i32",) * 6


# --- on a node -------------------------------------------------------------------------------------------------


def guest():
    """`run` loads entry `store` of kernel `scale` 1.0, launches it, and returns what it stored, or the code."""
    module = Module()
    load_named = module.import_function(CUDA_3_MODULE, "wasi_cuda_load_named", [I32] * 6, [I64])
    launch = module.import_function(CUDA_3_MODULE, "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    module.memory(1, export="memory")
    argv = pack([(Tag.POINTER, 4096, 4)])
    for at, text in ((16, b"scale"), (32, b"1.0"), (48, b"store"), (64, argv)):
        module.data(text, at)
    run = module.function([], [I64], export="run").code
    kernel = run.local(I64)
    for value in (16, 5, 32, 3, 48, 5):
        run.i32_const(value)
    run.call(load_named)
    run.tee(kernel)
    run.i64_const(0)
    run.op("i64.lt_s")
    with run.if_():
        run.get(kernel)
        run.op("return")
    run.get(kernel)
    for value in (1, 1, 1, 1, 1, 1, 0, 64, len(argv)):
        run.i32_const(value)
    run.call(launch)
    run.op("drop")
    run.i32_const(4096)
    run.memory("i64.load")
    return module.encode().wasm


def publish(node, who, ptx=PTX, entries=("store",), version="1.0"):
    manifest = json.dumps(
        {
            "name": "scale",
            "version": version,
            "sm": "sm_70",
            "entry_points": list(entries),
            "digest": blake3(ptx).hexdigest(),
            "publisher": KEY.public.text,
            "published_at": "2026-01-31T12:00:00Z",
            "format": 1,
        }
    ).encode()
    parts = {"manifest_b64": manifest, "signature_b64": KEY.sign(manifest), "ptx_b64": ptx}
    body = {name: base64.b64encode(data).decode() for name, data in parts.items()}
    answer = node.call("POST", "/kernels", body, who=who)
    assert answer.status == 201, answer.body


def result(node, function, who="one"):
    answer = node.run(function, "run", who=who)
    assert answer.status == 200, answer.body
    (value,) = answer.json["result"]
    return value


def test_guests_load_what_their_own_tenant_has_published_and_nothing_else(tmp_path):
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        mine, theirs = node.deploy(wasm=guest()), node.deploy("two", wasm=guest())
        assert result(node, mine) == UNKNOWN
        publish(node, "one")
        assert result(node, mine) == 42
        assert result(node, theirs, "two") == UNKNOWN
        publish(node, "two", PTX.replace(b"42", b"43"))
        assert (result(node, mine), result(node, theirs, "two")) == (42, 43)
        assert node.call("DELETE", "/kernels/scale/1.0", who="one").status == 204
        assert (result(node, mine), result(node, theirs, "two")) == (UNKNOWN, 43)
        publish(node, "one", PTX.replace(b"42", b"44"))
        assert result(node, mine) == 44


def test_what_was_changed_on_the_disk_or_is_not_allowed_any_more_is_not_loaded(tmp_path):
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        function = node.deploy(wasm=guest())
        publish(node, "one")
        assert result(node, function) == 42
    with administered(tmp_path) as node:
        assert result(node, function) == REFUSED
    with administered(tmp_path, kernel_publishers=SigningKey.generate().public.text) as node:
        assert result(node, function) == REFUSED
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        assert result(node, function) == 42
        # While the node runs, too: what it knows of the kernel is of the row as it was.
        with closing(sqlite3.connect(tmp_path / "node.db")) as database:
            database.execute("UPDATE kernels SET signature = zeroblob(64)")
            database.commit()
        assert result(node, function) == REFUSED
    with closing(sqlite3.connect(tmp_path / "node.db")) as database:
        database.execute("UPDATE kernels SET signature = ?", (b"",))
        database.commit()
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        assert result(node, function) == REFUSED


def test_a_damaged_text_is_not_loaded(tmp_path):
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        function = node.deploy(wasm=guest())
        publish(node, "one")
    (artifact,) = tmp_path.glob(f"artifacts/*/{blake3(PTX).hexdigest()}")
    artifact.write_bytes(PTX.replace(b"42", b"66"))
    with administered(tmp_path, kernel_publishers=KEY.public.text) as node:
        assert result(node, function) == INTERNAL
        artifact.write_bytes(PTX)
        assert result(node, function) == 42
