"""NVIDIA's library nvJitLink, which makes machine code, a *cubin*, of a text of PTX, in a process that has no GPU.

NVIDIA promises that a driver loads machine code made by any release of the toolkit with the same first number, newer
ones too ("minor version compatibility", from CUDA 11 on; not so for PTX, of which a driver reads what there was when it
was made), and by all older ones with a smaller one. So of several libraries the newest one is taken whose first number
is not above the driver's.

Why :mod:`ctypes` and not ``cuda.bindings.nvjitlink``: that looks for the library where the module ``site`` says, which
compiler processes go without, takes only the one of its own first number, and is a tenth of a second to import, for
functions of which none is called more than a few times a kernel.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Final

#: The library by its first number, newest first, and where its package has it.
LIBRARIES: Final = {13: "nvidia/cu13/lib", 12: "nvidia/nvjitlink/lib"}
_FILE: Final = "libnvJitLink.so.{}"
#: ``NVJITLINK_INPUT_PTX``.
_PTX: Final = 2
#: With this the log says how many registers a thread of a kernel takes.
_REGISTERS_OPTION: Final = "-Xptxas=-v"
#: What is said of a text is cut off after so many bytes.
_LOG_BYTES: Final = 8192
#: A line that names the library's function, which says nothing of the text.
_OWN_LINE: Final = re.compile(r"^ERROR .*$\n?", re.MULTILINE)


class NvJitLinkError(Exception):
    """The library failed. ``log`` is what it said of the text, empty when it did not get to that."""

    def __init__(self, call: str, code: int, log: str = "") -> None:
        super().__init__(f"{call} gives {code}" + (f": {log}" if log else ""))
        self.log = log


class NvJitLink:
    """The library whose first number is ``number``. Raises OSError where there is none.

    Opened again it costs little: the system has it still. Threads may share it, and other threads run meanwhile.
    """

    def __init__(self, number: int) -> None:
        name = _FILE.format(number)
        packages = (Path(entry, LIBRARIES[number], name) for entry in sys.path if Path(entry).is_absolute())
        self._library = ctypes.CDLL(next((str(path) for path in packages if path.is_file()), name))

    def knows(self, sm: str) -> bool:
        """Whether it makes machine code for an architecture."""
        handle = ctypes.c_void_p()
        if self._create(handle, sm):
            return False
        self._library.nvJitLinkDestroy(ctypes.byref(handle))
        return True

    def assemble(self, ptx: bytes, sm: str) -> tuple[bytes, bytes]:
        """Machine code of a text, and what is said of it. Raises :class:`NvJitLinkError`."""
        library, handle = self._library, ctypes.c_void_p()
        code = self._create(handle, sm)
        if code:
            raise NvJitLinkError("nvJitLinkCreate", code)
        try:
            code = library.nvJitLinkAddData(handle, _PTX, ptx, ctypes.c_size_t(len(ptx)), b"kernel")
            code = code or library.nvJitLinkComplete(handle)
            if code:
                log = self._get(handle, "ErrorLog").split(b"\0")[0][:_LOG_BYTES].decode("utf-8", "replace")
                log = _OWN_LINE.sub("", log).strip()
                raise NvJitLinkError("nvJitLinkComplete", code, log or f"it gives {code}")
            return self._get(handle, "LinkedCubin"), self._get(handle, "InfoLog")
        finally:
            library.nvJitLinkDestroy(ctypes.byref(handle))

    def _create(self, handle: ctypes.c_void_p, sm: str) -> int:
        options = (ctypes.c_char_p * 2)(f"-arch={sm}".encode(), _REGISTERS_OPTION.encode())
        return int(self._library.nvJitLinkCreate(ctypes.byref(handle), ctypes.c_uint32(len(options)), options))

    def _get(self, handle: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        code = getattr(self._library, f"nvJitLinkGet{what}Size")(handle, ctypes.byref(size))
        data = ctypes.create_string_buffer(max(size.value, 1))
        if not code and size.value:
            code = getattr(self._library, f"nvJitLinkGet{what}")(handle, data)
        if code:
            raise NvJitLinkError(f"nvJitLinkGet{what}", code)
        return data.raw[: size.value]


def find_library(sm: str, most: int) -> int:
    """The first number of the newest library here that is at most ``most`` and knows an architecture; 0 for none."""
    for number in LIBRARIES:
        try:
            if number <= most and NvJitLink(number).knows(sm):
                return number
        except (OSError, AttributeError):  # not there, or something else of its name
            continue
    return 0
