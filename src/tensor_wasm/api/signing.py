"""What a publisher signs of a kernel, made from its PTX."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensor_wasm.store.manifest import Manifest
    from tensor_wasm.store.signing import PublicKey


@dataclass(frozen=True, slots=True)
class SignedKernel:
    """A kernel as it is published: ``signature`` is of exactly the bytes of ``manifest``."""

    name: str
    version: str
    manifest: bytes
    signature: bytes
    ptx: bytes


def sign_kernel(
    name: str, version: str, ptx: str | bytes, key: str | Path, entry_points: Sequence[str] = ()
) -> SignedKernel:
    """Sign a kernel with the private key in a file, as ``tensor-wasm kernel keygen`` makes it.

    ``entry_points`` are what may be launched; all there is, when empty. Raises :class:`~tensor_wasm.errors.PtxError`,
    :class:`~tensor_wasm.errors.InvalidName`, :class:`~tensor_wasm.errors.ConfigurationError` for the key.
    """
    from tensor_wasm.errors import ConfigurationError
    from tensor_wasm.store.signing import KeyFileError, load_key_file

    data = ptx.encode() if isinstance(ptx, str) else bytes(ptx)
    try:
        signer = load_key_file(Path(key))
    except (KeyFileError, OSError) as error:
        raise ConfigurationError(f"the key cannot be used: {error}") from error
    manifest = manifest_of(name, version, data, signer.public, entry_points).encode()
    return SignedKernel(name, version, manifest, signer.sign(manifest), data)


def manifest_of(
    name: str, version: str, ptx: bytes, publisher: PublicKey, entry_points: Sequence[str] = ()
) -> Manifest:
    """What is signed of a kernel. Raises the errors that a node would answer with, before anything is sent."""
    from blake3 import blake3

    from tensor_wasm.errors import PtxError
    from tensor_wasm.ptx import find_kernel, read
    from tensor_wasm.store.manifest import ENTRY_POINTS_MAX, Manifest, check_name

    check_name(name, version)
    program = read(ptx)
    for entry in entry_points:
        find_kernel(program, entry)
    names = tuple(dict.fromkeys(entry_points)) or tuple(kernel.name for kernel in program.kernels)
    if not names:
        raise PtxError("there is no kernel (.entry) to publish")
    if len(names) > ENTRY_POINTS_MAX:
        raise PtxError(f"there are {len(names)} kernels, of which {ENTRY_POINTS_MAX} can be published: name those")
    return Manifest(
        name=name,
        version=version,
        sm=program.target,
        entry_points=names,
        digest=blake3(ptx).hexdigest(),
        publisher=publisher,
        published_at=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
