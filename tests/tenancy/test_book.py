from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from tensor_wasm.errors import ConfigurationError, Conflict, NotFound, RequestError, StoreError
from tensor_wasm.store import Database, TokenStore
from tensor_wasm.tenancy import TokenBook
from tensor_wasm.tenancy import book as book_module
from tensor_wasm.tenancy import tokens as tokens_module


@pytest.fixture
def store(database):
    return TokenStore(database)


@pytest.fixture
def book(store):
    return TokenBook(None, store)


@pytest.fixture
def clock(monkeypatch):
    """The time of both modules that read it: one number to set."""

    class Clock:
        now = 1_000_000.0

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(book_module, "time", clock)
    monkeypatch.setattr(tokens_module, "time", clock)
    return clock


# --- making tokens ------------------------------------------------------------------------------------------


def test_a_new_token_is_known_at_once_and_after_the_next_start(book, store):
    record, secret = book.create("first", "role=admin")
    for reader in (book, TokenBook(None, store)):
        principal = reader.find(secret.encode())
        assert (principal.is_admin, principal.tenants, principal.token_id) == (True, None, record.id)
    other, other_secret = book.create("", "tenant=2, 1")
    assert (other.name, other.scope) == ("", "tenant=1,2")
    assert book.find(other_secret.encode()).tenants == {1, 2}


def test_a_token_is_32_random_bytes_and_no_two_are_the_same(book):
    made = [book.create("", "role=admin") for _ in range(20)]
    assert all(re.fullmatch(r"tw_[A-Za-z0-9_-]{43}", secret, re.ASCII) for _, secret in made)
    assert len({secret for _, secret in made}) == len({record.id for record, _ in made}) == 20
    assert all(uuid.UUID(record.id).version == 4 for record, _ in made)


def test_the_secret_is_nowhere_on_the_disk(book, database, tmp_path):
    _, secret = book.create("first", "role=admin")
    book.find(secret.encode())
    book.close()
    database.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"first" in kept
    assert secret.encode() not in kept
    assert secret.removeprefix("tw_").encode() not in kept


def test_only_a_whole_token_is_known(book):
    _, secret = book.create("", "role=admin")
    wrong = [secret[:-1], secret + "A", secret + "\0", " " + secret, secret.swapcase(), secret.removeprefix("tw_"), ""]
    assert [book.find(text.encode()) for text in wrong] == [None] * len(wrong)
    assert book.find(b"\xff" * 100_000) is None


def test_the_hash_is_not_a_token(book):
    record, _ = book.create("", "role=admin")
    assert book.find(record.hash) is None
    assert book.find(record.hash.hex().encode()) is None


@pytest.mark.parametrize(
    "name",
    [
        "x" * 129,
        "a\nb",
        "a\0b",
        "\x1b[31mred",
        "a\x7fb",
        "a\x85b",
        "\u202emoc.live",
        "\u2028",
        "\ud800",
        "a\tb",
        "\u200b",
    ],
)
def test_a_name_is_short_and_printable(book, name):
    with pytest.raises(RequestError, match="128 printable"):
        book.create(name, "role=admin")
    assert book.is_empty


def test_a_name_may_be_in_any_script(book):
    name = "Ünïcode, 日本語, 'quotes\"; DROP TABLE tokens; -- " + "x" * 80
    record, _ = book.create(name, "role=admin")
    assert record.name == name == book.list()[0].name


@pytest.mark.parametrize("scope", ["", "tenant=", "role=root", "tenant=1,1", "tenant=" + "1," * 5000 + "1"])
def test_a_scope_that_is_none_is_refused(book, scope):
    with pytest.raises(RequestError, match="role=admin") as caught:
        book.create("", scope)
    assert len(caught.value.message) < 300
    assert book.is_empty


@pytest.mark.parametrize("scope", ["tenant=*", "tenant=1"])
def test_the_first_token_must_be_an_admins(book, scope):
    """Else nobody could make another one: the node would be closed to its operator."""
    with pytest.raises(Conflict, match="role=admin"):
        book.create("", scope)
    assert book.is_empty
    book.create("", "role=admin")
    assert not book.is_empty
    book.create("", scope)


def test_beside_settings_the_first_token_may_be_any(store):
    TokenBook("boss:role=admin", store).create("", "tenant=1")


def test_there_is_a_most_of_tokens(book, monkeypatch):
    monkeypatch.setattr(book_module, "TOKENS_MAX", 2)
    first, _ = book.create("", "role=admin")
    book.create("", "role=admin")
    with pytest.raises(Conflict, match="2 tokens"):
        book.create("", "role=admin")
    book.revoke(first.id)
    book.create("", "role=admin")


def test_a_token_that_could_not_be_kept_is_not_valid(book, database):
    book.create("", "role=admin")
    database.close()
    with pytest.raises(StoreError):
        book.create("", "role=admin")
    assert len(book.list()) == 1


# --- taking them back ---------------------------------------------------------------------------------------


def test_a_revoked_token_is_unknown_at_once_and_for_good(book, store):
    book.create("", "role=admin")
    record, secret = book.create("", "tenant=1")
    assert book.find(secret.encode()) is not None
    book.revoke(record.id)
    assert book.find(secret.encode()) is None
    assert TokenBook(None, store).find(secret.encode()) is None
    assert record.id not in {info.id for info in book.list()}
    with pytest.raises(NotFound):
        book.revoke(record.id)


@pytest.mark.parametrize("id", ["", "x", "settings-2", "' OR 1=1 --", "\0", "\ud800", "x" * 10_000])
def test_what_is_not_there_is_not_found(store, id):
    book = TokenBook("boss:role=admin", store)
    book.create("", "tenant=1")
    with pytest.raises(NotFound) as caught:
        book.revoke(id)
    assert len(caught.value.message) < 100
    assert len(book.list()) == 2


def test_the_last_admin_stays(book):
    first, first_secret = book.create("", "role=admin")
    book.create("", "tenant=1")
    with pytest.raises(Conflict, match="last token with role=admin"):
        book.revoke(first.id)
    assert book.find(first_secret.encode()).is_admin
    second, _ = book.create("", "role=admin")
    book.revoke(first.id)
    with pytest.raises(Conflict):
        book.revoke(second.id)


def test_an_admin_of_the_settings_is_one_too(store):
    book = TokenBook("boss:role=admin", store)
    record, _ = book.create("", "role=admin")
    book.revoke(record.id)
    assert not book.is_empty


def test_two_admins_that_revoke_each_other_leave_one(store):
    for _ in range(10):
        book = TokenBook(None, store)
        ids = [book.create("", "role=admin")[0].id for _ in range(2)] + [info.id for info in book.list()[:-2]]
        results = []

        def revoke(id, book=book, results=results):
            try:
                book.revoke(id)
            except Conflict as error:
                results.append(error)

        threads = [threading.Thread(target=revoke, args=(id,)) for id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 1
        assert [info.scope for info in book.list()] == ["role=admin"]


def test_a_token_of_the_settings_is_changed_there(store):
    book = TokenBook("boss:role=admin;;one:tenant=1", store)
    for id in ("settings-1", "settings-3"):
        with pytest.raises(Conflict, match="TENSOR_WASM_API_TOKENS"):
            book.revoke(id)


def test_revoking_works_while_the_disk_does_not(book, store, monkeypatch):
    """Whoever stole a token may have filled the disk with it."""
    book.create("", "role=admin")
    record, secret = book.create("", "tenant=1")

    def full(id):
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "delete", full)
    with pytest.raises(StoreError):
        book.revoke(record.id)
    assert book.find(secret.encode()) is None
    monkeypatch.undo()
    book.revoke(record.id)
    assert TokenBook(None, store).find(secret.encode()) is None


def test_an_admin_that_is_invalid_already_does_not_count_as_another(book, store, monkeypatch):
    first, _ = book.create("", "role=admin")
    second, _ = book.create("", "role=admin")
    monkeypatch.setattr(store, "delete", lambda id: (_ for _ in ()).throw(StoreError("full")))
    with pytest.raises(StoreError):
        book.revoke(first.id)
    with pytest.raises(Conflict):
        book.revoke(second.id)


# --- settings beside the database ---------------------------------------------------------------------------


def test_the_list_has_both_kinds_and_no_secret(store, clock):
    book = TokenBook("hunter2:tenant=2,1;boss:role=admin", store)
    record, secret = book.create("ci", "tenant=7")
    clock.now += 5
    book.find(b"hunter2")
    book.find(secret.encode())
    one, boss, made = book.list()
    assert (one.id, one.name, one.scope, one.source) == ("settings-1", "", "tenant=1,2", "settings")
    assert (one.created_at, one.last_used_at) == (None, clock.now)
    assert (boss.id, boss.scope, boss.last_used_at) == ("settings-2", "role=admin", None)
    assert (made.id, made.name, made.scope, made.source) == (record.id, "ci", "tenant=7", "database")
    assert (made.created_at, made.last_used_at) == (clock.now - 5, clock.now)
    assert not {"hunter2", "boss", secret} & set(re.findall(r"[\w-]+", repr(book.list())))


@pytest.mark.parametrize("text", ["", " ; ", "hunter2", "ok:tenant=1;hunter2:tenant=x"])
def test_malformed_settings_stop_the_start_and_stay_secret(store, text):
    with pytest.raises(ConfigurationError) as caught:
        TokenBook(text, store)
    assert "hunter2" not in caught.value.message


def test_a_token_is_in_the_settings_or_the_database(book, store):
    """Else revoking it in the one would leave it valid by the other."""
    record, secret = book.create("", "role=admin")
    with pytest.raises(ConfigurationError, match=record.id) as caught:
        TokenBook(f"boss:role=admin;{secret}:tenant=1", store)
    assert secret not in caught.value.message


def test_a_book_without_tokens_knows_nobody(book):
    assert book.is_empty
    assert book.find(b"") is None
    assert book.find(b"anything") is None
    assert book.list() == []


@pytest.mark.parametrize("scope", ["", "role=root", "tenant=18446744073709551616", "tenant=1;role=admin"])
def test_a_scope_of_the_database_that_is_none_stops_the_start(book, store, database, scope):
    record, _ = book.create("", "role=admin")
    with database.transaction() as connection:
        connection.execute("UPDATE tokens SET scope = ?", (scope,))
    with pytest.raises(StoreError, match=record.id):
        TokenBook(None, store)


# --- last use -----------------------------------------------------------------------------------------------


def stored(store):
    return {record.id: record.last_used_at for record in store.all()}


def test_last_use_is_written_by_flush_and_in_steps_of_a_minute(book, store, clock):
    record, secret = book.create("", "role=admin")
    idle, _ = book.create("", "role=admin")
    start = clock.now
    book.find(secret.encode())
    assert stored(store) == {record.id: None, idle.id: None}
    book.flush()
    assert stored(store) == {record.id: start, idle.id: None}
    clock.now += 59
    book.find(secret.encode())
    book.flush()
    assert stored(store)[record.id] == start
    assert book.list()[0].last_used_at == start + 59
    clock.now += 1
    book.find(secret.encode())
    book.flush()
    assert stored(store)[record.id] == start + 60
    clock.now += 1
    book.find(secret.encode())
    book.close()
    assert stored(store)[record.id] == start + 61
    assert TokenBook(None, store).list()[0].last_used_at == start + 61


def test_a_wrong_token_uses_none(book, clock):
    book.create("", "role=admin")
    book.find(b"wrong")
    assert book.list()[0].last_used_at is None


def test_a_clock_that_was_ahead_leaves_no_wrong_time_for_ever(book, store, clock):
    record, secret = book.create("", "role=admin")
    clock.now += 1e9
    book.find(secret.encode())
    book.flush()
    clock.now -= 1e9
    book.find(secret.encode())
    book.flush()
    assert stored(store)[record.id] == clock.now


def test_a_flush_with_nothing_new_writes_nothing(book, store, clock, monkeypatch):
    _, secret = book.create("", "role=admin")
    book.find(secret.encode())
    book.flush()
    monkeypatch.setattr(store, "touch", lambda used: pytest.fail("wrote"))
    book.flush()
    book.find(secret.encode())
    book.flush()
    book.close()


def test_what_a_failed_flush_did_not_write_the_next_one_does(book, store, clock, monkeypatch):
    record, secret = book.create("", "role=admin")
    book.find(secret.encode())

    def full(used):
        raise StoreError("full")

    monkeypatch.setattr(store, "touch", full)
    with pytest.raises(StoreError):
        book.flush()
    book.close()  # says so in the log
    monkeypatch.undo()
    book.flush()
    assert stored(store)[record.id] is not None


# --- the request path ---------------------------------------------------------------------------------------


@contextmanager
def held(database):
    """As if the disk were slow: whoever writes waits."""
    entered, go = threading.Event(), threading.Event()

    def hold():
        with database.transaction():
            entered.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    try:
        yield
    finally:
        go.set()
        thread.join()


@pytest.mark.parametrize("work", ["create", "revoke", "flush"])
def test_no_request_waits_for_the_disk(book, database, work):
    record, secret = book.create("", "role=admin")
    book.create("", "role=admin")
    book.find(secret.encode())
    todo = {
        "create": lambda: book.create("", "tenant=1"),
        "revoke": lambda: book.revoke(record.id),
        "flush": book.flush,
    }[work]
    with held(database):
        thread = threading.Thread(target=todo)
        thread.start()
        time.sleep(0.05)  # until it waits
        answered = []
        asking = threading.Thread(target=lambda: answered.append((book.find(b"x"), book.is_empty, len(book.list()))))
        asking.start()
        asking.join(5)
        assert answered == [(None, False, 2)]
        assert (book.find(secret.encode()) is None) == (work == "revoke")
    thread.join()


def test_many_tokens_cost_a_request_no_more_than_few(store):
    """A look at each of them in turn would also tell, by its time, how far it went."""

    def cost(book):
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(200):
                book.find(b"wrong")
            best = min(best, time.perf_counter() - start)
        return best

    few = TokenBook("a:role=admin", store)
    many = TokenBook(";".join(f"t{n}:tenant={n}" for n in range(3000)), store)
    assert cost(many) < 10 * cost(few)


def test_threads_find_while_others_change(book):
    _, secret = book.create("", "role=admin")
    failures, stop = [], threading.Event()

    def find():
        while not stop.is_set():
            found = [(book.find(secret.encode()) is not None, book.find(b"x"), book.is_empty) for _ in range(50)]
            failures.extend(answer for answer in found if answer != (True, None, False))
            time.sleep(0)  # else the others wait for the interpreter

    def change():
        try:
            for _ in range(20):
                record, other = book.create("", "tenant=1")
                if book.find(other.encode()) is None:
                    failures.append("create")
                book.list()
                book.flush()
                book.revoke(record.id)
                if book.find(other.encode()) is not None:
                    failures.append("revoke")
        except Exception as error:
            failures.append(error)

    finders = [threading.Thread(target=find) for _ in range(2)]
    changers = [threading.Thread(target=change) for _ in range(3)]
    for thread in finders + changers:
        thread.start()
    for thread in changers:
        thread.join()
    stop.set()
    for thread in finders:
        thread.join()
    assert failures == []
    assert len(book.list()) == 1


# --- a node that is killed ----------------------------------------------------------------------------------

OPENED = (
    "import sys\n"
    "from pathlib import Path\n"
    "from tensor_wasm.store import Database, TokenStore\n"
    "from tensor_wasm.tenancy import TokenBook\n"
    "book = TokenBook(None, TokenStore(Database(Path(sys.argv[1]))))\n"
)


@contextmanager
def child(script, path):
    process = subprocess.Popen([sys.executable, "-c", OPENED + script, str(path)], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_token_that_was_shown_survives_kill(tmp_path):
    """Killed in the middle of its work: each token that it showed is valid, none that it revoked."""
    script = (
        "book.create('', 'role=admin')\n"
        "while True:\n"
        "    _, kept = book.create('kept', 'tenant=18446744073709551615')\n"
        "    gone, secret = book.create('gone', 'tenant=1')\n"
        "    book.revoke(gone.id)\n"
        "    print(kept, secret, flush=True)\n"
    )
    path = tmp_path / "node.db"
    with child(script, path) as process:
        lines = [process.stdout.readline().split() for _ in range(20)]
        process.kill()
        lines += [line.split() for line in process.stdout if line.endswith("\n")]
    database = Database(path)
    book = TokenBook(None, TokenStore(database))
    assert all(book.find(kept.encode()).tenants == {(1 << 64) - 1} for kept, _ in lines)
    assert [book.find(gone.encode()) for _, gone in lines] == [None] * len(lines)
    database.close()


def test_the_first_token_survives_kill(tmp_path):
    """Else the node that starts again would be open to everybody."""
    path = tmp_path / "node.db"
    with child("print(book.create('', 'role=admin')[1], flush=True)\nimport signal; signal.pause()", path) as process:
        secret = process.stdout.readline().strip()
        process.kill()
    database = Database(path)
    book = TokenBook(None, TokenStore(database))
    assert not book.is_empty
    assert book.find(secret.encode()).is_admin
    database.close()
