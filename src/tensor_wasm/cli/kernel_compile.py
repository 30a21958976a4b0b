"""``tensor-wasm kernel compile FILE -o OUT.wasm``."""

from __future__ import annotations

import click

from tensor_wasm.abi import limits
from tensor_wasm.cli.arguments import read_file
from tensor_wasm.cli.files import write_file
from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.session import Session, with_session


@click.command("compile")
@click.argument("file")
@click.option("--entry", metavar="NAME", help="The kernel; may be left out when the file has one.")
@click.option("-o", "--output", required=True, metavar="OUT.wasm", help="Where the WebAssembly goes.")
@with_session
@click.pass_context
def compile_(context: click.Context, *, file: str, entry: str | None, output: str) -> None:
    """Compile a kernel of the PTX file FILE (- is stdin) to WebAssembly, as the CPU device does."""
    session = context.find_object(Session) or Session()
    ptx = read_file(file, limits.PTX_MAX_BYTES)

    from tensor_wasm.compiler import compile_kernel
    from tensor_wasm.device.session import only_kernel
    from tensor_wasm.ptx import find_kernel, read

    program = read(ptx)
    kernel = compile_kernel(find_kernel(program, only_kernel(ptx) if entry is None else entry), program)
    write_file(output, lambda stream: stream.write(kernel.wasm))
    if session.is_json:
        print_json(
            {
                "kernel": kernel.name,
                "file": output,
                "size_bytes": len(kernel.wasm),
                "work_bytes": kernel.work_bytes,
                "parameters": [
                    {"name": p.name, "type": p.kind, "size_bytes": p.size_bytes, "offset": p.offset}
                    for p in kernel.parameters
                ],
            }
        )
        return
    print_line(f"{safe(kernel.name)}: {len(kernel.wasm):,} bytes of WebAssembly in {safe(output)}")
    if kernel.parameters:
        rows = [[str(n), p.name, p.kind, str(p.size_bytes)] for n, p in enumerate(kernel.parameters)]
        print_table(("POSITION", "PARAMETER", "TYPE", "BYTES"), rows)
