"""The systemd unit read as data, and its filter of system calls as a program for the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNIT = SYSTEMD / "tensor-wasm.service"

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_X86_64 = 0xC000003E
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER, _DROP_CAPABILITY = 38, 22, 2, 24
#: Looked for by libuv, below the event loop, which does without when it is refused.
_TRIED = ("io_uring_setup",)
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}


def values(path: Path, key: str) -> list[str]:
    """What a unit file gives a key, in order."""
    return re.findall(rf"^{key}=(.*)$", path.read_text("utf-8"), re.MULTILINE)


def sets() -> dict[str, set[str]]:
    """systemd's own sets of system calls, each flattened."""
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    for line in text.stdout.splitlines():
        if line.startswith("@"):
            found[line.strip()] = rows = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            rows.append(line.strip())

    def flat(name: str) -> set[str]:
        return {call for row in found[name] for call in (flat(row) if row.startswith("@") else {row})}

    return {name: flat(name) for name in found}


def allowed(path: Path) -> set[str]:
    """The system calls that a unit allows: its lists from top to bottom, as systemd.exec(5) says."""
    known, result = sets(), set()
    for line in values(path, "SystemCallFilter"):
        names = {call for word in line.lstrip("~").split() for call in known.get(word, {word})}
        result = result - names if line.startswith("~") else result | names
    return result


def numbers() -> dict[str, int]:
    """The numbers of system calls on x86-64, from the kernel's header that the C compiler of the tests brings."""
    import ziglang

    header = Path(ziglang.__file__).parent / "lib" / "libc" / "include" / "x86-linux-any" / "asm" / "unistd_64.h"
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())}


def program(names: set[str], families: list[str]) -> bytes:
    """A filter: what is not allowed ends the process, so that nothing the node does is refused unseen."""

    def instruction(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("<HBBI", code, when, otherwise, value)

    number = numbers()
    code = instruction(_LOAD, _ARCHITECTURE_AT) + instruction(_EQUAL, _X86_64, 1, 0) + instruction(_RETURN, _KILL)
    code += instruction(_LOAD, _NUMBER_AT)
    # RestrictNamespaces= cannot look into clone3's argument, so systemd has it answer that it does not exist.
    code += instruction(_EQUAL, number["clone3"], 0, 1) + instruction(_RETURN, _ERRNO | errno.ENOSYS)
    for name in _TRIED:
        code += instruction(_EQUAL, number[name], 0, 1) + instruction(_RETURN, _ERRNO | errno.EPERM)
    for name in sorted(names & number.keys() - {"clone3", "socket", *_TRIED}):
        code += instruction(_EQUAL, number[name], 0, 1) + instruction(_RETURN, _ALLOW)
    code += instruction(_EQUAL, number["socket"], 1, 0) + instruction(_RETURN, _KILL)
    code += instruction(_LOAD, _FIRST_ARGUMENT_AT)
    for family in families:
        code += instruction(_EQUAL, _FAMILIES[family], 0, 1) + instruction(_RETURN, _ALLOW)
    return code + instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT)


def confine(code: bytes) -> None:
    """Give up all capabilities and install a filter, for this process and all that it becomes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        for capability in range(64):
            if libc.prctl(_DROP_CAPABILITY, capability, 0, 0, 0):
                break
    held = ctypes.create_string_buffer(code, len(code))
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held)))
    assert libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(_SET_SECCOMP, _FILTER, described, 0, 0) == 0, os.strerror(ctypes.get_errno())


if __name__ == "__main__":  # FILE COMMAND…: run a command under the filter that a file has
    confine(Path(sys.argv[1]).read_bytes())
    os.execv(sys.argv[2], sys.argv[2:])
