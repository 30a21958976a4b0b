"""Settings: environment and flags to one frozen :class:`Config`, in this place only.

Each field of :class:`Config` has a row in the table ``SETTINGS``: form, range, default, description. The documentation
(``docs/settings.md``) and the errors are made from the same row.
``python -m tensor_wasm.config > docs/settings.md`` writes the page anew.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tensor_wasm.errors import ConfigurationError

PREFIX = "TENSOR_WASM_"

#: Variables that the command line reads for itself: no settings of the node, and known all the same.
CLIENT_VARIABLES = frozenset(
    {
        "TENSOR_WASM_TOKEN",
        "TENSOR_WASM_SERVER",
        "TENSOR_WASM_TENANT",
        "TENSOR_WASM_CA_CERT",
        "TENSOR_WASM_CLIENT_CERT",
        "TENSOR_WASM_CLIENT_KEY",
    }
)

_SIZE_UNITS = {"": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,20})\s*([A-Za-z]{0,3})", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,20}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_UUID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_DEVICE = re.compile(f"auto|cpu|cuda:(?:[0-9]{{1,3}}|GPU-{_UUID})", re.ASCII)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
#: How the text of a public key begins; 32 bytes in base64 follow, whose last digit has two bits to spare.
PUBLIC_KEY_PREFIX = "ed25519:"
_PUBLIC_KEY = re.compile(PUBLIC_KEY_PREFIX + "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
_PUBLISHERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Form:
    """What a setting's text must look like: its type's name, the form in words, the range in words, and the parser.

    ``parse`` raises ValueError for what is outside the form or the range.
    """

    type: str
    text: str
    range: str
    parse: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of ``SETTINGS``.

    ``default`` is a value, or a function of the environment that gives it; ``shown`` is the default in words where the
    value does not say enough; ``is_secret`` values are never shown.
    """

    name: str
    form: Form
    default: object
    description: str
    shown: str | None = None
    is_secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        """The default for people."""
        return f"`{_text(self.default)}`" if self.shown is None else self.shown


def _integer(low: int, high: int) -> Form:
    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Form("integer", "a whole number", f"{low} to {high}", parse)


def _seconds(low: float, high: float) -> Form:
    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return Form("seconds", "a number of seconds", f"{low:g} to {high:g}", parse)


def _rate(low: float, high: float) -> Form:
    return Form("rate", "a number of requests a second", f"{low:g} to {high:g}", _seconds(low, high).parse)


def _power_of_two(low: int, high: int) -> Form:
    whole = _integer(low, high).parse

    def parse(text: str) -> object:
        value = whole(text)
        assert isinstance(value, int)
        if value & (value - 1):
            raise ValueError
        return value

    return Form("integer", "a power of two", f"{low} to {high}", parse)


def parse_size(text: str) -> int:
    """Bytes of a whole number, alone or with KiB, MiB or GiB. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2].lower()]


def _size(low: int, high: int) -> Form:
    def parse(text: str) -> int:
        value = parse_size(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Form("bytes", "a whole number of bytes, or one with KiB, MiB or GiB", f"{low} to {high} bytes", parse)


def _choice(*values: str) -> Form:
    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError
        return text.lower()

    return Form("word", "one of " + ", ".join(values), ", ".join(values), parse)


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError
    return Path(text).expanduser().absolute()


def is_device(text: str) -> bool:
    """Whether a text names a device: one that there may be."""
    return _DEVICE.fullmatch(text) is not None


def _device(text: str) -> str:
    if not is_device(text):
        raise ValueError
    return text


def _secret(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


def _address(text: str) -> str:
    split_address(text)
    return text


def is_public_key(text: str) -> bool:
    """Whether a text is that of a public key. There is one text for each key."""
    return _PUBLIC_KEY.fullmatch(text) is not None


def split_public_keys(text: str) -> tuple[str, ...]:
    """The public keys of a list with ``,`` or ``;`` between them. Raises ValueError."""
    keys = tuple(part.strip() for part in re.split("[,;]", text) if part.strip())
    if not keys or len(keys) > _PUBLISHERS_MAX or not all(map(is_public_key, keys)):
        raise ValueError
    return keys


def _public_keys(text: str) -> str:
    return ",".join(split_public_keys(text))


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}", host):
            raise ValueError
    elif not _HOST.fullmatch(host):
        raise ValueError
    if not separator or not _WHOLE.fullmatch(port) or int(port) > 65_535:
        raise ValueError
    return host, int(port)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    # A user's password would be shown with the setting; headers have a variable of their own.
    if "@" in parts.netloc or "?" in text or "#" in text or not text.isascii() or not text.isprintable():
        raise ValueError
    return text


def _audit(text: str) -> str:
    kind, separator, path = text.partition(":")
    if text in ("stdout", "none"):
        return text
    if kind != "file" or not separator or not path.strip():
        raise ValueError
    return f"file:{_path(path)}"


_PATH = Form("path", "a path of a directory", "any", _path)
_FILE = Form("path", "a path of a file", "any", _path)


#: The most cores that one launch can use.
KERNEL_THREADS_MAX = 256


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_workers(_: Mapping[str, str]) -> int:
    return max(4, 2 * cores())


def _default_kernel_threads(_: Mapping[str, str]) -> int:
    return min(cores(), KERNEL_THREADS_MAX)


def default_home(environ: Mapping[str, str]) -> Path:
    """Where a node keeps its state when nothing says otherwise: the user's data directory."""
    base = environ.get("XDG_DATA_HOME", "")
    if base.startswith("/"):
        return Path(base) / "tensor-wasm"
    user = environ.get("HOME", "")
    return (Path(user) if user.startswith("/") else Path.home()) / ".local" / "share" / "tensor-wasm"


def _text(value: object) -> str:
    """A value as one would write it into the environment."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value)


#: The table of settings, in the order of the documentation. A field of :class:`Config` each.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "home",
        _PATH,
        default_home,
        "Directory of the node's database, artifacts and caches. Made with mode 0700.",
        shown="`$XDG_DATA_HOME/tensor-wasm`, else `~/.local/share/tensor-wasm`",
    ),
    Setting(
        "listen_addr",
        Form("address", "host:port or [IPv6]:port", "port 0 to 65535; 0 takes a free one", _address),
        "127.0.0.1:8080",
        "Where the HTTP API listens. Without tokens only a loopback address is allowed.",
    ),
    Setting(
        "device",
        Form("word", "auto, cpu, cuda:N or cuda:GPU-UUID", "auto, cpu, cuda:0 to cuda:999, cuda:GPU-UUID", _device),
        "auto",
        "Device that runs kernels; `auto` takes the best there is. A GPU goes by its number or its UUID.",
    ),
    Setting("dispatch_permits", _integer(1, 1_000_000), 64, "Kernel launches in flight at once, over all tenants."),
    Setting(
        "dispatch_max_wait_ms",
        _integer(0, 3_600_000),
        None,
        "Longest time in milliseconds that a launch waits for a permit before it is refused as saturated.",
        shown="no bound but the invocation's deadline",
    ),
    Setting(
        "kernel_threads",
        _integer(1, KERNEL_THREADS_MAX),
        _default_kernel_threads,
        "Cores that one kernel launch with enough work uses. Also the default of `open_device` in Python.",
        shown="the cores",
    ),
    Setting(
        "cuda_partition_mib",
        _power_of_two(4, 1 << 20),
        1024,
        "Memory of a GPU, in MiB, that each tenant has for itself while it uses the GPU: what its guests allocate, the"
        " windows of their launches, the variables of their kernels.",
    ),
    Setting(
        "cuda_staging_mib",
        _integer(16, 4096),
        512,
        "Memory of the machine, in MiB, that is pinned for copies to and from a GPU, over all tenants. Windows of"
        " guests' launches become part of it; of what is left beside copies a tenant alone gets half.",
    ),
    Setting(
        "workers",
        _integer(1, 4096),
        _default_workers,
        "Threads that run guests: as many invocations run at once, but no more that want a core than there are cores.",
        shown="twice the cores, at least 4",
    ),
    Setting(
        "snapshot_dir",
        _PATH,
        None,
        "Where snapshots are kept.",
        shown="`snapshots` in the home",
    ),
    Setting(
        "snapshot_concurrency",
        _integer(1, 64),
        1,
        "Snapshots written at once; others wait.",
    ),
    Setting(
        "snapshot_file_bytes",
        _integer(1 << 16, 1 << 40),
        4 << 30,
        "Largest snapshot file that is taken.",
    ),
    Setting(
        "snapshot_keys",
        Form("public keys", "`ed25519:BASE64`, joined by `,` or `;`", f"1 to {_PUBLISHERS_MAX} keys", _public_keys),
        None,
        "Whose snapshot files are taken besides the node's own. `tensor-wasm snapshot key` shows a node's.",
        shown="none",
    ),
    Setting(
        "instance_idle_s",
        _seconds(0.1, 604_800),
        300.0,
        "Longest time that a kept instance may be idle; also how long, when its maker asks for nothing.",
    ),
    Setting(
        "invoke_deadline_s",
        _seconds(0.001, 86_400),
        30.0,
        "Longest time an invocation may take, and its deadline when it names none.",
    ),
    Setting("max_body_bytes", _size(1024, 1 << 30), 64 << 20, "Largest body of a request.", shown="64 MiB"),
    Setting(
        "instance_memory_bytes",
        _size(65_536, 4 << 30),
        1 << 30,
        "Memory that one instance may have, its own and its kernels' together.",
        shown="1 GiB",
    ),
    Setting(
        "output_bytes",
        _size(0, 1 << 30),
        1 << 20,
        "Standard output and error kept of one invocation, together; the rest is dropped.",
        shown="1 MiB",
    ),
    Setting(
        "queue_depth",
        _integer(1, 1_000_000),
        1024,
        "Invocations of one tenant that may wait for a worker; its next is refused. All tenants take turns by weight.",
    ),
    Setting(
        "job_queue_depth",
        _integer(1, 1_000_000),
        10_000,
        "Background jobs of one tenant that may wait; its next is refused.",
    ),
    Setting(
        "job_stored_bytes",
        _size(1 << 20, 1 << 40),
        1 << 30,
        "Bytes that one tenant's jobs may take on the disk, at least 512 each. Results go before their time when all"
        " take more, oldest first; a job that does not fit beside those that wait is refused.",
        shown="1 GiB",
    ),
    Setting(
        "job_retention_s",
        _seconds(1, 31_536_000),
        86_400.0,
        "How long a job and its result are kept after its end.",
    ),
    Setting(
        "held_body_bytes",
        _size(1 << 20, 1 << 40),
        1 << 30,
        "Bodies of requests that the node holds at once, over all tenants; one tenant may hold half of it.",
        shown="1 GiB",
    ),
    Setting(
        "drain_s", _seconds(0, 3600), 30.0, "Longest time that running invocations get to finish when the node stops."
    ),
    Setting("log", _choice("debug", "info", "warning", "error"), "info", "Least severe level that is logged."),
    Setting("log_format", _choice("text", "json"), "text", "Log lines for people, or one JSON object a line."),
    Setting(
        "otlp_endpoint",
        Form("URL", "http:// or https://, a host, a port and a path if wanted", "no user, query or fragment", _url),
        None,
        "Collector that traces are exported to by OTLP over HTTP; `/v1/traces` is added to the path. OpenTelemetry's"
        " own variables say the rest: `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`.",
        shown="none: nothing is exported",
    ),
    Setting(
        "trace_qps",
        _rate(0, 1_000_000),
        10.0,
        "Requests a second of one tenant that are traced because their `traceparent` asks for it. What the sampler"
        " takes by itself is not bounded.",
    ),
    Setting(
        "kernel_cache_dir",
        _PATH,
        None,
        "Directory of compiled kernels, to put it on another volume.",
        shown="`cache/kernels` in the home",
    ),
    Setting(
        "kernel_publishers",
        Form("public keys", "`ed25519:BASE64`, joined by `,` or `;`", f"1 to {_PUBLISHERS_MAX} keys", _public_keys),
        None,
        "Whose signed kernels are taken and loaded by name. Without any, a node without tokens takes anybody's, and one"
        " with tokens nobody's.",
        shown="none",
    ),
    Setting(
        "compilers",
        _integer(0, 64),
        2,
        "Processes that compile kernels and functions, started as needed; of several, one takes only texts of up to"
        " 64 KiB. With 0 the node compiles in its own process, without a time limit.",
    ),
    Setting(
        "compile_timeout_s",
        _seconds(0.001, 3600),
        30.0,
        "Longest time that compiling a kernel or a function may take; what takes longer is refused.",
    ),
    Setting(
        "api_tokens",
        Form("secret", "`TOKEN:tenant=*`, `TOKEN:tenant=1,2` or `TOKEN:role=admin`, joined by `;`", "any", _secret),
        None,
        "Bearer tokens and what each may do. Without any, the node listens on loopback only and every caller is admin.",
        shown="none",
        is_secret=True,
    ),
    Setting(
        "api_metrics_token",
        Form("secret", "a token of printable characters", "any", _secret),
        None,
        "Bearer token that GET /metrics asks for.",
        shown="none: whoever reaches the node may read metrics",
        is_secret=True,
    ),
    Setting(
        "api_rate_limit_qps",
        _rate(0.001, 1_000_000),
        None,
        "Requests a second that one token may make for one tenant, on average.",
        shown="no limit",
    ),
    Setting(
        "api_rate_limit_burst",
        _integer(1, 1_000_000),
        None,
        "Requests that one token may make for one tenant at once, after a pause.",
        shown="one second's worth, at least 1",
    ),
    Setting(
        "audit",
        Form("destination", "stdout, none or file:PATH", "any", _audit),
        "stdout",
        "Where `serve` writes its audit log: a JSON line for each call that changes state or is refused.",
    ),
    Setting(
        "audit_invocations",
        Form("boolean", "1 or 0 (true, false, yes, no, on, off)", "0 or 1", _boolean),
        False,
        "Writes a line of the audit log for each invocation too, not only for those that are refused.",
    ),
    Setting(
        "observe_window_s",
        _seconds(1, 86_400),
        300.0,
        "The window that `tensor-wasm observe` tells rates and percentiles over. Three of them are kept, of 60 samples"
        " each.",
    ),
    Setting(
        "operator_addr",
        Form("address", "host:port or [IPv6]:port", "port 0 to 65535; 0 takes a free one", _address),
        None,
        "Where the operator's listener, which needs no event loop, listens besides its socket in the home. With the"
        " API's tokens and TLS; without TLS and tokens only on a loopback address.",
        shown="none: the socket alone",
    ),
    Setting(
        "tls_cert",
        _FILE,
        None,
        "Certificate chain (PEM) that the node serves HTTPS with; read again on SIGHUP.",
        shown="none: plain HTTP",
    ),
    Setting("tls_key", _FILE, None, "Private key (PEM, no passphrase) of the certificate.", shown="none"),
    Setting(
        "tls_client_ca",
        _FILE,
        None,
        "Certificates (PEM) that sign clients' certificates; a client without one is then refused at the handshake.",
        shown="none: clients need no certificate",
    ),
    Setting(
        "dev_mode",
        Form("boolean", "1 or 0 (true, false, yes, no, on, off)", "0 or 1", _boolean),
        False,
        "Allows a node without tokens on other addresses than loopback; warns every minute.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set on a node; ``SETTINGS`` says what each means. Made by :func:`load`, checked there."""

    home: Path
    listen_addr: str
    device: str
    dispatch_permits: int
    dispatch_max_wait_ms: int | None
    kernel_threads: int
    cuda_partition_mib: int
    cuda_staging_mib: int
    workers: int
    snapshot_dir: Path | None
    snapshot_concurrency: int
    snapshot_file_bytes: int
    snapshot_keys: str | None
    instance_idle_s: float
    invoke_deadline_s: float
    max_body_bytes: int
    instance_memory_bytes: int
    output_bytes: int
    queue_depth: int
    job_queue_depth: int
    job_stored_bytes: int
    job_retention_s: float
    held_body_bytes: int
    drain_s: float
    log: str
    log_format: str
    otlp_endpoint: str | None
    trace_qps: float
    kernel_cache_dir: Path | None
    kernel_publishers: str | None
    compilers: int
    compile_timeout_s: float
    api_tokens: str | None = field(repr=False)
    api_metrics_token: str | None = field(repr=False)
    api_rate_limit_qps: float | None
    api_rate_limit_burst: int | None
    audit: str
    audit_invocations: bool
    observe_window_s: float
    operator_addr: str | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    dev_mode: bool

    @property
    def listen_host(self) -> str:
        """The host part of ``listen_addr``, without brackets."""
        return split_address(self.listen_addr)[0]

    @property
    def listen_port(self) -> int:
        """The port of ``listen_addr``; 0 takes a free one."""
        return split_address(self.listen_addr)[1]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from ("default", "environment", "flag"), and what to warn about."""

    config: Config
    sources: dict[str, str]
    warnings: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """(variable, value, source) of each setting, for people: a secret is only said to be set."""
        rows = []
        for setting in SETTINGS:
            value = getattr(self.config, setting.name)
            shown = "(not set)" if value is None else "(set, not shown)" if setting.is_secret else _text(value)
            rows.append((setting.variable, shown, self.sources[setting.name]))
        return rows


def load(environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Loaded:
    """Settings from ``environ``, then ``overrides`` (by field name; None says nothing).

    Raises :class:`ConfigurationError` naming the variable, the form and the range.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    unknown = sorted(given.keys() - {setting.name for setting in SETTINGS})
    if unknown:
        raise ConfigurationError(f"there is no setting {unknown[0]!r}")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable)
        if setting.name in given:
            values[setting.name] = _read(setting, _text(given[setting.name]))
            sources[setting.name] = "flag"
        elif text is not None and (text.strip() or setting.is_secret):
            values[setting.name] = _read(setting, text)
            sources[setting.name] = "environment"
        else:
            values[setting.name] = setting.default(environ) if callable(setting.default) else setting.default
            sources[setting.name] = "default"
    return Loaded(Config(**values), sources, tuple(_warnings(environ)))


def kernel_threads(environ: Mapping[str, str]) -> int:
    """The setting ``kernel_threads`` alone. Raises :class:`ConfigurationError`."""
    setting = next(row for row in SETTINGS if row.name == "kernel_threads")
    text = environ.get(setting.variable, "")
    value = _read(setting, text) if text.strip() else _default_kernel_threads(environ)
    assert isinstance(value, int)
    return value


def _read(setting: Setting, text: str) -> object:
    text = text.strip()
    if setting.is_secret and not text:
        raise ConfigurationError(f"{setting.variable} is empty: unset it, or give {setting.form.text}")
    try:
        return setting.form.parse(text)
    except (ValueError, OverflowError, RuntimeError):  # RuntimeError: `~user` of a user there is not
        pass
    shown = "" if setting.is_secret else f"={text[:80]!r}"
    form = setting.form
    raise ConfigurationError(f"{setting.variable}{shown}: must be {form.text}; range: {form.range}")


def _warnings(environ: Mapping[str, str]) -> list[str]:
    known = [setting.variable for setting in SETTINGS]
    warnings = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or name in CLIENT_VARIABLES:
            continue
        nearest = difflib.get_close_matches(name, known, 1, 0.0)
        warnings.append(f"{name[:80]} is no setting and does nothing; the nearest there is: {nearest[0]}")
    return warnings


def describe() -> list[Setting]:
    """The rows of the table."""
    return list(SETTINGS)


def settings_page() -> str:
    """The text of ``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        "Each setting is an environment variable; a flag of the same name (`--listen-addr`) goes before it.",
        "`tensor-wasm config show` prints every value and where it came from. An unknown `TENSOR_WASM_*` name is a",
        "warning; a bad value stops the start. An empty variable counts as not set; an empty secret stops the start.",
        "",
        "Made from the table in `src/tensor_wasm/config.py` by `python -m tensor_wasm.config > docs/settings.md`.",
        "",
        "| variable | type | default | range or form | |",
        "|---|---|---|---|---|",
    ]
    for row in SETTINGS:
        scope = row.form.text if row.form.range == "any" else row.form.range
        lines.append(f"| `{row.variable}` | {row.form.type} | {row.default_text} | {scope} | {row.description} |")
    lines += [
        "",
        "The command line reads for itself: `TENSOR_WASM_SERVER`, `TENSOR_WASM_TOKEN`, `TENSOR_WASM_TENANT`,",
        "`TENSOR_WASM_CA_CERT`, `TENSOR_WASM_CLIENT_CERT`, `TENSOR_WASM_CLIENT_KEY`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
