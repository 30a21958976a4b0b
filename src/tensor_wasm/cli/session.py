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
MAX_TENANT = (1 << 64) - 1

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """What the global options say."""

    server: str = DEFAULT_SERVER
    token: str | None = field(default=None, repr=False)
    tenant: int | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    is_json: bool = False

    def client(self) -> Client:
        """A client of the server, as this caller.

        Raises :class:`~tensor_wasm.cli.failures.Failure` for a bad URL, or a certificate or key that cannot be used.
        """
        from tensor_wasm.cli.client import Client
        from tensor_wasm.cli.tls import TlsFiles

        return Client(self.server, self.token, self.tenant, TlsFiles(self.ca_cert, self.client_cert, self.client_key))


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.find_object(Session) or Session()
    if value is not None:
        session = replace(session, **{parameter.name or "": value})
    context.obj = session


def _token(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
        raise usage("the token (--token, TENSOR_WASM_TOKEN) must be printable ASCII without spaces")
    _remember(context, parameter, value)


def read_tenant(text: str) -> int | None:
    """A tenant's number, None for what is none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= MAX_TENANT):
        return None
    return int(text)


def _tenant(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    tenant = None if value is None else read_tenant(value)
    if value is not None and tenant is None:
        raise usage(f"the tenant (--tenant, TENSOR_WASM_TENANT) must be a decimal number from 0 to {MAX_TENANT}")
    _remember(context, parameter, tenant)


def global_options(
    *, from_environment: bool, tenant_help: str | None = "The tenant to act for."
) -> Callable[[_Command], _Command]:
    """Give a command the global options; they reach it as a :class:`Session` through ``click.pass_obj``.

    The root command reads the environment too. Subcommands do not, or the environment would outdo what was written
    before the subcommand. ``tenant_help`` says what ``--tenant`` does here; None: the command has no such option.
    """

    def environment(name: str) -> str | None:
        return name if from_environment else None

    def file_option(name: str, variable: str, text: str) -> Callable[[_Command], _Command]:
        return click.option(
            name,
            metavar="FILE",
            envvar=environment(variable),
            show_envvar=True,
            expose_value=False,
            callback=_remember,
            help=text,
        )

    options = [
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
        file_option(
            "--ca-cert", "TENSOR_WASM_CA_CERT", "Authorities (PEM) to trust, instead of the system's, for https."
        ),
        file_option("--client-cert", "TENSOR_WASM_CLIENT_CERT", "Certificate chain (PEM) to show an https node."),
        file_option("--client-key", "TENSOR_WASM_CLIENT_KEY", "Its private key (PEM), if that is in another file."),
        click.option(
            "--json",
            "is_json",
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_remember,
            help="Print one JSON document instead of text for people.",
        ),
    ]
    if tenant_help is not None:
        tenant = click.option(
            "--tenant",
            metavar="NUMBER",
            envvar=environment("TENSOR_WASM_TENANT"),
            show_envvar=True,
            expose_value=False,
            callback=_tenant,
            help=tenant_help,
        )
        options.insert(2, tenant)

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


#: What a subcommand is decorated with.
with_session = global_options(from_environment=False)
