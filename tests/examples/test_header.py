import re
from pathlib import Path

import pytest

from tensor_wasm import abi
from tensor_wasm.abi import CUDA_MODULES, SCHEDULER_MODULE, TENSOR_MODULES, Code, Tag

HEADER = (Path(__file__).parents[2] / "examples" / "include" / "wasi_cuda.h").read_text("utf-8")

C_TYPES = {"int32_t": "i32", "uint32_t": "i32", "size_t": "i32", "int64_t": "i64", "uint64_t": "i64", "void": None}


def enumeration(prefix: str, name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)[1]
    return {key: int(value) for key, value in re.findall(rf"{prefix}(\w+) = (-?\d+),", body)}


def kind(declaration: str) -> str | None:
    if "*" in declaration:
        return "i32"
    return C_TYPES[declaration.replace("const ", "").split()[0]]


def chosen(module: str) -> str:
    """The header as it is for who has chosen the version of a module."""
    newest = {"CUDA": module == CUDA_MODULES[-1], "TENSOR": module == TENSOR_MODULES[-1]}

    def choose(found: re.Match[str]) -> str:
        new, _, old = found[2].partition("#else")
        return new if newest[found[1]] else old

    return re.sub(r"#if WASI_(CUDA|TENSOR)_VERSION >= \d\n(.*?)#endif", choose, HEADER, flags=re.DOTALL)


def declared(text: str) -> dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]:
    pattern = r'WASI_CUDA_IMPORT\(WASI_(\w+)_HOST, "([\w-]+)"\)\s+(\w+) \w+\(([^)]*)\);'
    found = {}
    for host, name, result, parameters in re.findall(pattern, text):
        module = re.search(rf'#define WASI_{host}_HOST "([^"]+)"', text)[1]
        kinds = tuple(kind(" ".join(p.split())) for p in parameters.split(",") if p.strip() != "void")
        found[module, name] = kinds, tuple(k for k in (kind(result),) if k)
    return found


def test_the_codes_are_the_abi_s():
    assert enumeration("WASI_CUDA_", "wasi_cuda_code") == {code.name: code.value for code in Code}


def test_the_tags_are_the_abi_s():
    assert enumeration("WASI_CUDA_TAG_", "wasi_cuda_tag") == {tag.name: tag.value for tag in Tag}


@pytest.mark.parametrize("module", [CUDA_MODULES[0], CUDA_MODULES[-1], *TENSOR_MODULES, SCHEDULER_MODULE])
def test_every_import_is_declared_with_the_abi_s_signature(module):
    ours = {name: signature for (host, name), signature in declared(chosen(module)).items() if host == module}
    theirs = {name: (s.parameters, s.results) for name, s in abi.signatures(module).items()}
    assert ours == theirs


def test_the_default_argv_holds_a_kernel_with_28_parameters():
    assert int(re.search(r"#define WASI_CUDA_ARGV_BYTES (\d+)", HEADER)[1]) >= 28 * 9
