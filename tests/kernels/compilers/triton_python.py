"""Python by Triton, for a device of compute capability 8.0.

Line tables name the file and the line; the kernel's file is given a short name and each kernel starts at line 1, so
that neither a folder nor an edit elsewhere in the file changes what is built.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings

from kernels.products import Product, lack_of, without_folders

#: The kernels of `from_triton/source.py` and what is built of each: words of its table of options.
VARIANTS = {
    "add": ("", "wide", "narrow", "aligned"),
    "softmax": ("", "wide", "aligned"),
    "layernorm": ("", "narrow"),
    "matmul_f16": ("", "wide", "aligned"),
    "matmul_bf16": ("", "aligned"),
    "matmul_f32": ("",),
    "matmul_tf32": ("", "aligned"),
    "matmul_s8": ("", "aligned"),
    "attention": ("", "causal", "aligned"),
    "dropout": ("",),
    "random_words": ("",),
    "reductions": ("", "narrow"),
    "argmax": ("", "wide"),
    "scans": ("",),
    "histogram": ("",),
    "sort": ("", "narrow"),
    "activations": ("",),
    "doubles": ("",),
    "transpose": ("", "narrow"),
    "embedding": ("",),
    "quantise": ("",),
    "locked": ("",),
    "convolve": ("", "five"),
}


class Triton:
    """Triton, which brings its own LLVM."""

    name = "Triton"
    is_optional = True
    products = tuple(Product(f"from_triton/{name}", word) for name, words in VARIANTS.items() for word in words)

    def lack(self) -> str:
        """Why it cannot run here, empty when it can."""
        return lack_of("triton")

    def build(self, product: Product) -> str:
        """The PTX of a product."""
        warnings.filterwarnings("ignore", module="triton")
        os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TRITON_CACHE_DIR"] = folder
            return without_folders(_compile(product.source.rpartition("/")[2], product.variant))


def _compile(name: str, variant: str) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module("kernels.from_triton.source")
    for value in vars(module).values():
        function = getattr(value, "function", value)
        if isinstance(function, triton.JITFunction):
            function.file_name = "source.py"
            function.starting_line_number = function.def_file_line_number = 1
    kernel = getattr(module, name)
    plan = kernel.plans[variant]
    constants = {key: value for key, value in plan.items() if key not in ("num_warps", "aligned")}
    source = ASTSource(
        kernel.function,
        signature=kernel.signature | dict.fromkeys(constants, "constexpr"),
        constexprs=constants,
        attrs={(list(kernel.signature).index(key),): [["tt.divisibility", 16]] for key in plan.get("aligned", ())},
    )
    options = {"num_warps": plan.get("num_warps", 4), "num_stages": 2}
    return str(triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"])
