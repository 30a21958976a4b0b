"""Keys in files, signatures, and a node's own key."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tensor_wasm.errors import StoreError
from tensor_wasm.store import signing
from tensor_wasm.store.signing import (
    KeyFileError,
    PublicKey,
    SigningKey,
    load_key_file,
    load_public_key,
    make_key_files,
    node_signing_key,
    read_public_key,
)

#: RFC 8032, 7.1, tests 1 and 2: secret, public, message, and both halves of the signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "first", "second"), VECTORS)
def test_signatures_are_those_of_rfc_8032(secret, public, message, first, second):
    signature = first + second
    key = SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    data = bytes.fromhex(message)
    assert key.public.raw.hex() == public
    assert key.sign(data).hex() == signature
    assert key.public.verify(bytes.fromhex(signature), data)
    assert not key.public.verify(bytes.fromhex(signature), data + b"\0")


def test_no_bit_of_a_signature_or_a_message_can_be_changed():
    key, data = SigningKey.generate(), b'{"name":"x"}'
    signature = key.sign(data)
    for position in range(len(signature)):
        changed = bytearray(signature)
        changed[position] ^= 1 << position % 8
        assert not key.public.verify(bytes(changed), data)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        assert not key.public.verify(signature, bytes(changed))
    for other in (b"", signature[:-1], signature + b"\0"):
        assert not key.public.verify(other, data)
    assert not SigningKey.generate().public.verify(signature, data)


def test_a_public_key_has_one_text():
    key = SigningKey.generate().public
    assert read_public_key(key.text) == key
    body = key.text.removeprefix("ed25519:")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sibling = last[last.index(body[-2]) | 1]  # the same bytes for a lenient reader
    for text in (
        body, key.text + "\n", " " + key.text, "ED25519:" + body, key.text[:-1], key.text + "=",
        f"ed25519:{body[:-2]}{sibling}=", "ed25519:" + body.replace("=", ""), "", "ed25519:" + "A" * 1_000_000,
    ):  # fmt: skip
        with pytest.raises(KeyFileError):
            read_public_key(text)


# --- the curve, to know which points have a small order (RFC 8032, 5.1) -----------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add(first, second):
    (x1, y1), (x2, y2) = first, second
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def test_a_key_under_which_anybody_could_sign_is_refused():
    found = 0
    for raw in sorted(signing._SMALL_ORDER):
        y = int.from_bytes(raw, "little") % P
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        assert x * x % P == square
        point = (x, y)
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)  # eight times it is nothing
        for sign in (0, 0x80):
            key = PublicKey(raw[:-1] + bytes([raw[-1] | sign]))
            with pytest.raises(KeyFileError, match="small order"):
                read_public_key(key.text)
            found += 1
    assert found == 14
    # What is refused: under the neutral element, this is the signature of everything.
    anything = (1).to_bytes(32, "little") + bytes(32)
    assert PublicKey((1).to_bytes(32, "little")).verify(anything, b"whatever")


# --- files -------------------------------------------------------------------------------------------------------


def test_a_private_key_is_read_again_and_never_shown(tmp_path):
    key = make_key_files(tmp_path / "key")
    assert load_key_file(tmp_path / "key").public == key.public
    assert load_public_key(str(tmp_path / "key.pub")) == key.public
    assert "PRIVATE" not in repr(key) + str(key)
    assert key.pem().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_files_that_hold_no_key_say_what_to_do(tmp_path):
    file = tmp_path / "key"

    def refusal(data, mode=0o600):
        file.write_bytes(data)
        file.chmod(mode)
        with pytest.raises(KeyFileError) as caught:
            load_key_file(file)
        return str(caught.value)

    good = SigningKey.generate().pem()
    other = ec.generate_private_key(ec.SECP256R1())
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    assert "chmod 600" in refusal(good, 0o644)
    assert "Ed25519" in refusal(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "passphrase" in refusal(locked)
    assert "keygen" in refusal(b"")
    assert "keygen" in refusal(good[:60])
    assert "keygen" in refusal(b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 1000)
    assert "too long" in refusal(good + b"\n" * (16 << 10))
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(KeyFileError, match="regular"):
            load_key_file(place)
    for text in (b"", b"two\nlines\n", b"\xff", b"ed25519:x", b"x" * 129):
        file.write_bytes(text)
        with pytest.raises(KeyFileError):
            load_public_key(str(file))


def test_a_failed_write_leaves_no_half_key(tmp_path, monkeypatch):
    monkeypatch.setattr(signing.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"):
        make_key_files(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


# --- the node's own ----------------------------------------------------------------------------------------------


def test_a_node_makes_its_key_once(tmp_path):
    key = node_signing_key(tmp_path / "home")
    assert node_signing_key(tmp_path / "home").public == key.public
    assert (tmp_path / "home" / "signing.key").stat().st_mode & 0o777 == 0o600


def test_two_that_make_it_at_once_get_the_same(tmp_path):
    found, start = [], threading.Barrier(4)

    def make():
        start.wait()
        found.append(node_signing_key(tmp_path).public)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_damaged_or_open_key_stops_the_node(tmp_path):
    node_signing_key(tmp_path)
    file = tmp_path / "signing.key"
    file.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        node_signing_key(tmp_path)
    file.chmod(0o600)
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        node_signing_key(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError, match="is damaged"):
        node_signing_key(tmp_path)


def test_nothing_is_imported_for_who_signs_nothing():
    code = (
        "import sys, tensor_wasm.store.signing, tensor_wasm.store.manifest;"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'cryptography']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
