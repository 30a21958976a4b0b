"""``tensor-wasm completions SHELL``."""

from __future__ import annotations

import click

from tensor_wasm.cli.output import print_line

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completions(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash, for example: tensor-wasm completions bash > ~/.local/share/bash-completion/completions/tensor-wasm
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = context.find_root()
    script = made(root.command, {}, "tensor-wasm", "_TENSOR_WASM_COMPLETE")
    print_line(script.source_template % script.source_vars())
