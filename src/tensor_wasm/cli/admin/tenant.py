"""``tensor-wasm admin tenant list``, ``show`` and ``set``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tensor_wasm.cli.admin.operator import advised, client_of, with_operator
from tensor_wasm.cli.arguments import read_count, read_rate, read_size
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.output import print_json, print_line, print_table, safe
from tensor_wasm.cli.quantities import mebibytes
from tensor_wasm.cli.session import MAX_TENANT, Session, read_tenant

_DEFAULT = "default"
_NONE = "-"

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class QuotaOption:
    """A quota on the command line: its option's name, the API's ``field``, what of ``usage`` it limits.

    ``read`` makes its value of a text; None for a boolean, which has none. The node knows the range and says it.
    ``unlimited`` is what its absence means, in words.
    """

    name: str
    field: str
    usage: str | None
    read: Callable[[str], int | float] | None
    metavar: str
    help: str
    unlimited: str = "no limit"

    @property
    def flag(self) -> str:
        """As it is written: ``--name``, for a boolean ``--name/--no-name``."""
        return f"--{self.name}/--no-{self.name}" if self.read is None else f"--{self.name}"


#: The quotas of a tenant, in the order of the API's.
QUOTA_OPTIONS: tuple[QuotaOption, ...] = (
    QuotaOption("weight", "weight", None, read_count, "N", "Share of permits and workers when tenants compete."),
    QuotaOption("permits", "permits", "permits_held", read_count, "N", "Kernel launches in flight at once."),
    QuotaOption("instances", "instances", "instances", read_count, "N", "Live instances at once."),
    QuotaOption(
        "guest-memory", "guest_memory_bytes", "guest_memory_bytes", read_size, "SIZE",
        "Memory of all live instances together, for example 512MiB.",
    ),
    QuotaOption(
        "gpu-memory", "gpu_memory_bytes", "gpu_memory_bytes", read_size, "SIZE",
        "Device memory that guests allocate, together.",
    ),
    QuotaOption("functions", "functions", "functions", read_count, "N", "Deployed functions."),
    QuotaOption("stored", "stored_bytes", "stored_bytes", read_size, "SIZE", "Modules on the node's disk, together."),
    QuotaOption("rate-qps", "rate_qps", None, read_rate, "R", "Requests a second, on average, over all tokens."),
    QuotaOption(
        "rate-burst", "rate_burst", None, read_count, "N", "Requests at once after a pause.", "one second's worth",
    ),
    QuotaOption("cuda", "cuda", None, None, "", "Whether guests may use the device."),
)  # fmt: skip
_BY_NAME = {name: option for option in QUOTA_OPTIONS for name in (option.name, option.field)}


@click.group(no_args_is_help=False)
def tenant() -> None:
    """See and set what tenants may have."""


def _quota_options(command: _Command) -> _Command:
    for option in reversed(QUOTA_OPTIONS):
        shape: dict[str, Any] = {} if option.read is None else {"type": option.read, "metavar": option.metavar}
        command = click.option(option.flag, option.field, default=None, help=option.help, **shape)(command)
    return command


@tenant.command("list")
@with_operator
@click.pass_obj
def list_tenants(session: Session) -> None:
    """List every tenant: what it holds of what it may have. The first row has the defaults of all."""
    with advised():
        answer = client_of(session).tenants()
    if session.is_json:
        print_json(answer)
        return
    names = [option.name.upper().replace("-", " ") for option in QUOTA_OPTIONS]
    defaults = {"tenant": None, "quotas": answer.get("defaults")}
    print_table(["TENANT", *names, "QUEUED"], [_row(item) for item in [defaults, *answer["tenants"]]])


@tenant.command()
@click.argument("tenant")
@with_operator
@click.pass_obj
def show(session: Session, tenant: str) -> None:
    """Show one tenant's quotas, what it holds, and which quotas are its own. TENANT is a number, or `default`."""
    number = _number(tenant)
    with advised():
        answer = client_of(session).tenant(number)
    _show(session, answer)


@tenant.command("set")
@click.argument("tenant")
@_quota_options
@click.option(
    "--unset",
    multiple=True,
    metavar="QUOTA",
    help="Have this quota be the default again; its name is as in the options, for example guest-memory.",
)
@with_operator
@click.pass_obj
def set_quotas(session: Session, /, tenant: str, unset: tuple[str, ...], **given: Any) -> None:
    """Change quotas of TENANT, at once, and show what then holds. The others stay as they are.

    TENANT is a number, or `default` for what holds for every tenant that has no quota of its own. Sizes are bytes, or
    have KiB, MiB or GiB.
    """
    number = _number(tenant)
    changes = {field: value for field, value in given.items() if value is not None}
    for name in unset:
        option = _BY_NAME.get(name.removeprefix("--"))
        if option is None:
            known = ", ".join(known.name for known in QUOTA_OPTIONS)
            raise usage(f"--unset {safe(name)}: there is no such quota; there are {known}")
        if changes.get(option.field) is not None:
            raise usage(f"--{option.name} and --unset {option.name} contradict each other")
        changes[option.field] = None
    if not changes:
        raise usage("say what to change, for example --weight 2 (see 'tensor-wasm admin tenant set --help')")
    with advised():
        answer = client_of(session).change_tenant(number, changes)
    _show(session, answer)


def _number(text: str) -> int | None:
    """A tenant as the client takes it: None is ``default``."""
    if text == _DEFAULT:
        return None
    number = read_tenant(text)
    if number is None:
        raise usage(f"TENANT must be a decimal number from 0 to {MAX_TENANT}, or `{_DEFAULT}`")
    return number


def _show(session: Session, answer: dict[str, Any]) -> None:
    if session.is_json:
        print_json(answer)
        return
    quotas, held = _fields(answer, "quotas"), answer.get("usage")
    overrides = answer.get("overrides")
    own = overrides if isinstance(overrides, list) else []
    names = ("own", "default") if answer.get("tenant") is not None else ("set", "built in")
    rows = []
    for option in QUOTA_OPTIONS:
        limit = _value(option, quotas.get(option.field)) or option.unlimited
        rows.append([option.name, _used(option, held) or _NONE, limit, names[option.field not in own]])
    print_line(f"tenant {safe(_name(answer))}")
    print_table(["QUOTA", "HOLDS", "LIMIT", "FROM"], rows)
    if isinstance(held, dict):
        queued, waiting = (safe(str(held.get(name, "?"))) for name in ("queued", "launches_waiting"))
        print_line(f"waiting: {queued} invocations for a worker, {waiting} launches for a permit")


def _row(item: dict[str, Any]) -> list[str]:
    quotas, held = _fields(item, "quotas"), item.get("usage")
    cells = [_name(item)]
    for option in QUOTA_OPTIONS:
        limit = _value(option, quotas.get(option.field)) or _NONE
        cells.append(limit if option.usage is None else f"{_used(option, held) or _NONE} / {limit}")
    return [*cells, str(held.get("queued", _NONE)) if isinstance(held, dict) else _NONE]


def _name(item: dict[str, Any]) -> str:
    number = item.get("tenant")
    return _DEFAULT if number is None else str(number)


def _fields(item: dict[str, Any], name: str) -> dict[str, Any]:
    found = item.get(name)
    return found if isinstance(found, dict) else {}


def _used(option: QuotaOption, held: object) -> str:
    if option.usage is None or not isinstance(held, dict):
        return ""
    return _value(option, held.get(option.usage))


def _value(option: QuotaOption, value: object) -> str:
    """A quota or what is held of it, as people read it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if option.read is read_size:
        return mebibytes(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
