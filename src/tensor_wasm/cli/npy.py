"""``.npy`` files: read with care, for they may be anyone's, and written."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.cli.failures import Failure, usage
from tensor_wasm.cli.files import write_file
from tensor_wasm.cli.output import safe

#: What reading a file that is none raises, the parser of its header included.
_ERRORS = (
    EOFError,
    MemoryError,
    OSError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
)

_MAGIC = b"\x93NUMPY"


def read_npy(path: str, limit_bytes: int) -> NDArray[Any]:
    """The array in a ``.npy`` file, writable, C order.

    Pickled objects are never loaded, and no memory is taken for elements that the file does not have. Raises a usage
    :class:`Failure` for a file that cannot be used, ``too_large`` for more than ``limit_bytes``.
    """
    name = safe(path)
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise usage(f"{name} is not a regular file")
        with Path(path).open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise usage(f"{name} is not a .npy file; numpy.save writes one")
        if found.st_size > limit_bytes + (1 << 20):
            raise Failure("too_large", f"{name} has {found.st_size:,} bytes; the device takes {limit_bytes:,}")
        return _load(path)
    except _ERRORS as error:
        if isinstance(error, FileNotFoundError):
            raise usage(f"there is no file {name}") from None
        detail = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise usage(f"{name} cannot be read as a .npy file: {safe(detail)}") from None


def _load(path: str) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header of Python 2's is read all the same
        # Mapped first: a header that promises more than the file has fails here, before any memory is taken.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not mapped.dtype.isnative:
        mapped = mapped.astype(mapped.dtype.newbyteorder("="))
    return np.array(mapped, order="C", subok=False)


def write_npy(path: str, array: NDArray[Any]) -> None:
    """Write an array to a ``.npy`` file. Raises :class:`OSError`."""
    write_file(path, lambda stream: np.save(stream, array, allow_pickle=False))
