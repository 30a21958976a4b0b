"""The options every command has: which server, who asks, and for whom the answer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tensor_wasm.cli.failures import usage

if TYPE_CHECKING:
    from tensor_wasm.cli.client import Client

DEFAULT_SERVER = "http://127.0.0.1:8080"
_MAX_TENANT = (1 << 64) - 1

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """What the global options say."""

    server: str = DEFAULT_SERVER
    token: str | None = field(default=None, repr=False)
    tenant: int | None = None
    is_json: bool = False

    def client(self) -> Client:
        """A client of the server, as this caller. Raises :class:`~tensor_wasm.cli.failures.Failure` for a bad URL."""
        from tensor_wasm.cli.client import Client

        return Client(self.server, self.token, self.tenant)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.find_object(Session) or Session()
    if value is not None:
        session = replace(session, **{parameter.name or "": value})
    context.obj = session


def _token(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
        raise usage("the token (--token, TENSOR_WASM_TOKEN) must be printable ASCII without spaces")
    _remember(context, parameter, value)


def _tenant(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        _remember(context, parameter, None)
        return
    if not (value.isascii() and value.isdecimal() and len(value) <= 20 and int(value) <= _MAX_TENANT):
        raise usage(f"the tenant (--tenant, TENSOR_WASM_TENANT) must be a decimal number from 0 to {_MAX_TENANT}")
    _remember(context, parameter, int(value))


def global_options(*, from_environment: bool) -> Callable[[_Command], _Command]:
    """Give a command the global options; they reach it as a :class:`Session` through ``click.pass_obj``.

    The root command reads the environment too. Subcommands do not, or the environment would outdo what was written
    before the subcommand.
    """

    def environment(name: str) -> str | None:
        return name if from_environment else None

    options = (
        click.option(
            "--server",
            metavar="URL",
            envvar=environment("TENSOR_WASM_SERVER"),
            show_envvar=True,
            expose_value=False,
            callback=_remember,
            help=f"The node to talk to; {DEFAULT_SERVER} when not given.",
        ),
        click.option(
            "--token",
            metavar="TOKEN",
            envvar=environment("TENSOR_WASM_TOKEN"),
            show_envvar=True,
            expose_value=False,
            callback=_token,
            help="Bearer token. The environment keeps it out of the process list.",
        ),
        click.option(
            "--tenant",
            metavar="NUMBER",
            envvar=environment("TENSOR_WASM_TENANT"),
            show_envvar=True,
            expose_value=False,
            callback=_tenant,
            help="The tenant to act for.",
        ),
        click.option(
            "--json",
            "is_json",
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_remember,
            help="Print one JSON document instead of text for people.",
        ),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


#: What a subcommand is decorated with.
with_session = global_options(from_environment=False)
