"""A signed kernel for the tests of the Python API."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import tensor_wasm as tw
from tensor_wasm.store.signing import make_key_files

PTX = """
.version 7.0
.target sm_70
.address_size 64
.visible .entry nothing()
{
    ret;
}
"""


@cache
def signed():
    """A kernel, signed with a key that every node here takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key.pem"
        make_key_files(path)
        return tw.sign_kernel("nothing", "1.0", PTX, path)


def publisher():
    """The public key of :func:`signed`."""
    return json.loads(signed().manifest)["publisher"]
