"""A home copied while a node serves on it, and put back.

A backup is a directory like a home, without caches, with a manifest of the digests of its files.

That each row of the copied database has its artifact is not a matter of luck. A function's artifact is there before its
row and goes after it, so: what is there is linked first; then, while no writer may commit, a view of the database is
opened and what came since is linked too. Writers then go on, and the view is copied, however long that takes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blake3 import blake3

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import UNFINISHED, make_directory, sync_directory, unusable, write_durably
from tensor_wasm.store.home import PARTS, Kind, check_database, parts, regular_files
from tensor_wasm.store.lock import HomeLock
from tensor_wasm.store.repair import damage_of, file_sizes, references

MANIFEST = "manifest.json"
_FORMAT = 1
_MANIFEST_BYTES_MAX = 256 << 20
_BUSY_S = 30.0
_READ_BYTES = 1 << 20
#: Longest time that writers are kept waiting at once: a node gives up a write after five seconds.
_HELD_S = 2.0
_PASSES_MAX = 20
#: Steps of the online backup, in pages.
_STEP_PAGES = 4096


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made or put back. ``missing`` is what was damaged or gone in the home."""

    directory: Path
    files: int
    size_bytes: int
    missing: tuple[str, ...]
    #: Where restore put what was in the home before; None when there was nothing.
    replaced: Path | None = None


def back_up(home: Path, directory: Path) -> Backup:
    """Copy a home to ``directory``, which must not exist or be empty.

    What has that name afterwards is whole and on the disk. Raises :class:`StoreError`.
    """
    if not (home / "node.db").exists():
        raise StoreError(f"{home} has no node.db: no node ever ran there, or it is damaged (`tensor-wasm doctor`)")
    check_database(home)
    directory = directory.absolute()
    _refuse_if_filled(directory)
    with _translated(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=directory.parent, prefix=UNFINISHED))
        try:
            missing = _gather(home, place)
            backup = _seal(place, directory, missing)
            place.replace(directory)
            sync_directory(directory.parent)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return backup


def restore(directory: Path, home: Path, *, replaces: bool) -> Backup:
    """Put a backup in the place of a home, all of it or nothing.

    With ``replaces`` what is in the home goes to another name beside it. Raises :class:`StoreError`, before anything is
    changed, when the backup is not whole, the home has something in it, or a node runs on it.
    """
    manifest = _read_manifest(directory)
    home = home.absolute()
    lock = HomeLock(home) if home.is_dir() and any(home.iterdir()) else None
    replaced = None
    try:
        if lock is not None and not replaces and {path.name for path in home.iterdir()} != {"node.lock"}:
            raise StoreError(f"{home} is not empty: `tensor-wasm restore --force` keeps it under another name")
        with _translated(home):
            if home.is_mount():
                raise StoreError(f"{home} is a mount point and cannot be replaced: name a directory in it as the home")
            home.parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=home.parent, prefix=UNFINISHED))
            try:
                _copy_checked(directory, place, manifest)
                if lock is not None:
                    replaced = home.with_name(f"{home.name}.replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
                    home.rename(replaced)
                place.rename(home)
                sync_directory(home.parent)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
    finally:
        if lock is not None:
            lock.close()
    sizes = [size for size, _ in manifest.files.values()]
    return Backup(directory, len(sizes), sum(sizes), manifest.missing, replaced)


# --- making one ---------------------------------------------------------------------------------------------


def _gather(home: Path, place: Path) -> set[str]:
    """Put all parts of a home into ``place``; what rows name and is not there whole: digests, and paths of files."""
    kept = parts(Kind.ARTIFACTS, Kind.FILES)
    for part in kept:
        _link_all(home / part.name, place / part.name, None)
    for part in parts(Kind.DATABASE):
        _copy_database(
            home / part.name,
            place / part.name,
            lambda until: all(_link_all(home / other.name, place / other.name, until) for other in kept),
        )
        named = references(place / part.name)
    for part in parts(Kind.SECRET):
        with contextlib.suppress(FileNotFoundError):
            write_durably(place / part.name, (home / part.name).read_bytes(), replace=True)
    present: set[str] = set()
    for part in parts(Kind.ARTIFACTS):
        for path in list(regular_files(place / part.name)):
            if path.name in named and _digest(path) == path.name:
                present.add(path.name)
            else:
                path.unlink()
    missing = named.keys() - present
    for part in parts(Kind.FILES):
        sizes = file_sizes(place, part)
        for path in list(regular_files(place / part.name)):
            if sizes.get(path.name) == path.stat().st_size:
                del sizes[path.name]
            else:
                path.unlink()
        missing |= {f"{part.name}/{name}" for name in sizes}
    return missing


def _copy_database(source: Path, target: Path, link_rest: Callable[[float], bool]) -> None:
    """Copy a database as it is at one moment. ``link_rest`` is called at that moment; if it says no, at another."""
    with (
        contextlib.closing(_connect(source)) as writer,
        contextlib.closing(_connect(source)) as reader,
        contextlib.closing(_connect(target)) as copy,
    ):
        for _ in range(_PASSES_MAX):
            writer.execute("BEGIN IMMEDIATE")  # nobody commits until the rollback
            try:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the view is of now
                is_whole = link_rest(time.monotonic() + _HELD_S)
            finally:
                writer.execute("ROLLBACK")
            if is_whole:
                break
            reader.execute("ROLLBACK")
        else:
            raise StoreError("files come faster than they can be copied: put the backup on the home's own disk")
        reader.backup(copy, pages=_STEP_PAGES)
        reader.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE")
    target.chmod(0o600)
    damage = damage_of(target)
    if damage is not None:
        raise StoreError(f"{source} cannot be backed up: {damage}. Stop the node and run `tensor-wasm doctor --repair`")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)


def _link_all(source: Path, target: Path, until: float | None) -> bool:
    """Link (across disks: copy) what is not in ``target`` yet. False when ``until`` came before it was done."""
    for path in regular_files(source) if source.is_dir() else ():
        if path.name.startswith(UNFINISHED):
            continue
        place = target / path.relative_to(source)
        if place.exists():
            continue
        if until is not None and time.monotonic() > until:
            return False
        _make_folder(place.parent)
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            try:
                os.link(path, place, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                    raise
                _copy_file(path, place)
    return True


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; the copy has its name once it is whole."""
    partial = target.with_name(UNFINISHED + target.name)
    try:
        with source.open("rb") as given, os.fdopen(_create(partial), "wb") as taken:
            shutil.copyfileobj(given, taken, _READ_BYTES)
            taken.flush()
            os.fsync(taken.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """As ``mkdir(parents=True)``, which makes the parents with another mode."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _seal(place: Path, directory: Path, missing: set[str]) -> Backup:
    """Write the manifest, and all of it to the disk."""
    from tensor_wasm import __version__

    files = {}
    total = 0
    for path in sorted(regular_files(place)):
        size = path.stat().st_size
        total += size
        files[path.relative_to(place).as_posix()] = {"size_bytes": size, "blake3": _digest(path)}
    document = {
        "format": _FORMAT,
        "made_by": __version__,
        "made_at": time.time(),
        "missing": sorted(missing),
        "files": files,
    }
    write_durably(place / MANIFEST, json.dumps(document, indent=1).encode(), replace=True)
    _sync_tree(place)
    return Backup(directory, len(files), total, tuple(sorted(missing)))


def _sync_tree(place: Path) -> None:
    for folder, _, _ in os.walk(place):
        sync_directory(Path(folder))


# --- putting one back ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The files of a backup, each with its size and digest, and the artifacts that it lacks."""

    files: dict[str, tuple[int, str]]
    missing: tuple[str, ...]


def _read_manifest(directory: Path) -> _Manifest:
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_BYTES_MAX:
            raise StoreError(f"{path} is too large to be a manifest")
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{directory} is no backup: it has no {MANIFEST}") from None
    except OSError as error:
        raise unusable(path, error) from error
    except ValueError:
        raise StoreError(f"{path} is damaged: use another backup") from None
    try:
        if document["format"] != _FORMAT:
            raise StoreError(f"{path} is of a format that this release does not read")
        files = {
            str(name): (int(entry["size_bytes"]), str(entry["blake3"])) for name, entry in document["files"].items()
        }
        manifest = _Manifest(files, tuple(str(digest) for digest in document["missing"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(f"{path} is damaged: use another backup") from None
    for name in manifest.files:
        if not _is_kept(name):
            raise StoreError(f"{path} names what no backup has: {name[:200]}")
    if not all(part.name in manifest.files for part in parts(Kind.DATABASE)):
        raise StoreError(f"{path} names no database: use another backup")
    return manifest


def _is_kept(name: str) -> bool:
    """Whether a manifest may name such a file: what it says must not lead out of the home."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\0" in name:
        return False
    for part in PARTS:
        if part.kind in (Kind.DATABASE, Kind.SECRET) and name == part.name:
            return True
        if part.kind in (Kind.ARTIFACTS, Kind.FILES) and name.startswith(f"{part.name}/"):
            return True
    return False


def _copy_checked(directory: Path, place: Path, manifest: _Manifest) -> None:
    for name, (size, digest) in manifest.files.items():
        source, target = directory / name, place / name
        _make_folder(target.parent)
        try:
            if not stat.S_ISREG(source.lstat().st_mode):
                raise StoreError(f"{source} is not a regular file: use another backup")
            _copy_file(source, target)
        except FileNotFoundError:
            raise StoreError(f"{source} is missing: the backup is not whole, use another") from None
        if target.stat().st_size != size or _digest(target) != digest:
            raise StoreError(f"{source} is not what was backed up: use another backup")
    for part in parts(Kind.DATABASE):
        damage = damage_of(place / part.name)
        if damage is not None:
            raise StoreError(f"{directory}: {damage}")
        lacking = references(place / part.name).keys() - set(manifest.missing)
        lacking -= {path.name for other in parts(Kind.ARTIFACTS) for path in regular_files(place / other.name)}
        if lacking:
            raise StoreError(f"{directory} lacks {len(lacking)} artifacts that its database names: use another backup")
    for part in parts(Kind.ARTIFACTS):
        make_directory(place / part.name)
    _sync_tree(place)


# --- both ---------------------------------------------------------------------------------------------------


def _refuse_if_filled(directory: Path) -> None:
    try:
        if any(directory.iterdir()):
            raise StoreError(f"{directory} is not empty: name a directory that does not exist")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unusable(directory, error) from error


def _digest(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            hasher.update(data)
    return hasher.hexdigest()


@contextlib.contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or place}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreError(f"the database cannot be copied: {error}. `tensor-wasm doctor` says what is wrong") from error
