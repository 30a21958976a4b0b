import re
from pathlib import Path

import pytest

from tensor_wasm import abi
from tensor_wasm.abi import Code, Tag

HEADER = (Path(__file__).parents[2] / "examples" / "include" / "wasi_cuda.h").read_text("utf-8")

C_TYPES = {"int32_t": "i32", "uint32_t": "i32", "size_t": "i32", "int64_t": "i64", "uint64_t": "i64", "void": None}


def enumeration(prefix: str, name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)[1]
    return {key: int(value) for key, value in re.findall(rf"{prefix}(\w+) = (-?\d+),", body)}


def kind(declaration: str) -> str | None:
    if "*" in declaration:
        return "i32"
    return C_TYPES[declaration.replace("const ", "").split()[0]]


def declared() -> dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]:
    pattern = r'WASI_CUDA_IMPORT\(WASI_(\w+)_HOST, "([\w-]+)"\)\s+(\w+) \w+\(([^)]*)\);'
    found = {}
    for host, name, result, parameters in re.findall(pattern, HEADER):
        module = re.search(rf'#define WASI_{host}_HOST "([^"]+)"', HEADER)[1]
        kinds = tuple(kind(" ".join(p.split())) for p in parameters.split(",") if p.strip() != "void")
        found[module, name] = kinds, tuple(k for k in (kind(result),) if k)
    return found


def test_the_codes_are_the_abi_s():
    assert enumeration("WASI_CUDA_", "wasi_cuda_code") == {code.name: code.value for code in Code}


def test_the_tags_are_the_abi_s():
    assert enumeration("WASI_CUDA_TAG_", "wasi_cuda_tag") == {tag.name: tag.value for tag in Tag}


@pytest.mark.parametrize("module", ["wasi:cuda/host@0.2.0", abi.TENSOR_MODULE, abi.SCHEDULER_MODULE])
def test_every_import_is_declared_with_the_abi_s_signature(module):
    ours = {name: signature for (host, name), signature in declared().items() if host == module}
    theirs = {name: (s.parameters, s.results) for name, s in abi.signatures(module).items()}
    assert ours == theirs


def test_the_default_argv_holds_a_kernel_with_28_parameters():
    assert int(re.search(r"#define WASI_CUDA_ARGV_BYTES (\d+)", HEADER)[1]) >= 28 * 9
