"""The manifest of a kernel: what its publisher signs. Its bytes are kept and verified as they were sent."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tensor_wasm.abi.limits import ENTRY_MAX_BYTES
from tensor_wasm.errors import InvalidManifest, InvalidName
from tensor_wasm.store.signing import KeyFileError, PublicKey, read_public_key

FORMAT = 1
MANIFEST_MAX_BYTES = 64 << 10
ENTRY_POINTS_MAX = 256
NAME_MAX = 128
VERSION_MAX = 64

_FIELDS = ("digest", "entry_points", "format", "name", "published_at", "publisher", "sm", "version")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_ONLY_DOTS = re.compile(r"\.+")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SM = re.compile(r"sm_[0-9]{2,3}[af]?", re.ASCII)
_ENTRY = re.compile(r"[A-Za-z_$%][A-Za-z0-9_$]*", re.ASCII)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A kernel as its publisher describes it.

    ``sm`` is the PTX's ``.target``, ``entry_points`` what of it may be launched, ``digest`` its BLAKE3 (hex),
    ``published_at`` RFC 3339 in UTC.
    """

    name: str
    version: str
    sm: str
    entry_points: tuple[str, ...]
    digest: str
    publisher: PublicKey
    published_at: str

    def encode(self) -> bytes:
        """The bytes to sign."""
        fields = {
            "digest": self.digest,
            "entry_points": list(self.entry_points),
            "format": FORMAT,
            "name": self.name,
            "published_at": self.published_at,
            "publisher": self.publisher.text,
            "sm": self.sm,
            "version": self.version,
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def check_name(name: str, version: str) -> None:
    """Raises :class:`InvalidName` unless both can be a kernel's."""
    for text, limit, what in ((name, NAME_MAX, "name"), (version, VERSION_MAX, "version")):
        if len(text) > limit or not _PLAIN.fullmatch(text) or _ONLY_DOTS.fullmatch(text):
            raise InvalidName(f"a kernel's {what} has 1 to {limit} characters of A-Z a-z 0-9 . _ - and not only dots")


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes. Nothing is read leniently: two readers must not see two manifests.

    Raises :class:`InvalidManifest`, :class:`InvalidName`.
    """
    if len(data) > MANIFEST_MAX_BYTES:
        raise InvalidManifest(f"manifest: it has {len(data)} bytes; at most {MANIFEST_MAX_BYTES} are taken")
    try:
        fields = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InvalidManifest("manifest: it is not JSON in UTF-8") from None
    if not isinstance(fields, dict) or sorted(fields) != list(_FIELDS):
        raise InvalidManifest(f"manifest: it must be an object with exactly the fields {', '.join(_FIELDS)}")
    return _manifest(fields)


def _manifest(fields: dict[str, Any]) -> Manifest:
    if type(fields["format"]) is not int or fields["format"] != FORMAT:
        raise InvalidManifest(f"manifest: format must be {FORMAT}, the one that this release reads")
    texts = {name: _text(fields, name) for name in _FIELDS if name not in ("format", "entry_points")}
    check_name(texts["name"], texts["version"])
    if not _SM.fullmatch(texts["sm"]):
        raise InvalidManifest("manifest: sm must be the PTX's target, such as sm_80")
    if not _DIGEST.fullmatch(texts["digest"]):
        raise InvalidManifest("manifest: digest must be 64 hexadecimal digits in lower case, the BLAKE3 of the PTX")
    if not _is_moment(texts["published_at"]):
        raise InvalidManifest("manifest: published_at must be a moment in UTC such as 2026-01-31T12:00:00Z")
    try:
        publisher = read_public_key(texts["publisher"])
    except KeyFileError as error:
        raise InvalidManifest(f"manifest: publisher: {error}") from None
    return Manifest(
        name=texts["name"],
        version=texts["version"],
        sm=texts["sm"],
        entry_points=_entry_points(fields["entry_points"]),
        digest=texts["digest"],
        publisher=publisher,
        published_at=texts["published_at"],
    )


def _entry_points(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= ENTRY_POINTS_MAX:
        raise InvalidManifest(f"manifest: entry_points must be a list of 1 to {ENTRY_POINTS_MAX} names")
    for entry in value:
        if not isinstance(entry, str) or len(entry) > ENTRY_MAX_BYTES or not _ENTRY.fullmatch(entry):
            raise InvalidManifest(
                f"manifest: an entry point is a name as PTX has it, of at most {ENTRY_MAX_BYTES} characters"
            )
    if len(set(value)) != len(value):
        raise InvalidManifest("manifest: entry_points names one twice")
    return tuple(value)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise InvalidManifest(f"manifest: {name} must be a string")
    return value


def _is_moment(text: str) -> bool:
    if not _MOMENT.fullmatch(text):
        return False
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidManifest("manifest: it has a field twice")
    return fields


def _integer(digits: str) -> int:
    if digits != str(FORMAT):  # the only number there is; a long one is not even converted
        raise InvalidManifest(f"manifest: format must be {FORMAT}, the one that this release reads")
    return FORMAT


def _refuse(_text: str) -> NoReturn:
    raise InvalidManifest("manifest: it has a number that is no plain integer")
