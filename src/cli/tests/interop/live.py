"""Handshakes of the plain profile with the package X3DH, in both directions, with fresh keys.

    cargo build -p oncekey-cli --features conformance
    python3 -m venv venv && venv/bin/pip install X3DH==1.3.0
    venv/bin/python live.py target/debug/oncekey [ROUNDS]

Each round goes through every combination of the form of the identity keys, their secret (seed or
scalar), the hash, with and without a one-time prekey, and the encoding of keys: 32 handshakes that
the package starts and Oncekey answers, and 32 the other way round. Both sides must agree on the
secret and on the associated data. Then each side must refuse a bundle whose signature is wrong.
"""

import asyncio
import itertools
import json
import os
import secrets
import subprocess
import sys

import x3dh
import xeddsa
from x3dh.models import BaseStateModel, IdentityKeyPairModel, SignedPreKeyPairModel
from x3dh.types import IdentityKeyFormat, SecretType


class Raw(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format, pub):
        return pub


class Djb05(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format, pub):
        return b"\x05" + pub


ENCODINGS = {"raw": Raw, "djb05": Djb05}
CHOICES = list(itertools.product(
    ("ED_25519", "CURVE_25519"), ("seed", "priv"), ("SHA_256", "SHA_512"), ENCODINGS, (True, False)))


class Oncekey:
    """The program, asked line by line."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "conformance"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, op, **fields):
        hexed = lambda value: value.hex() if isinstance(value, bytes) else (
            {key: hexed(inner) for key, inner in value.items()} if isinstance(value, dict) else (
                [hexed(inner) for inner in value] if isinstance(value, list) else value))
        self.process.stdin.write(json.dumps({"op": op, **hexed(fields)}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def good(self, op, **fields):
        answer = self.ask(op, **fields)
        assert "error" not in answer, f"{op}: {answer}"
        return answer


def scalar():
    """A clamped scalar: the package signs wrongly with any other."""
    n = bytearray(secrets.token_bytes(32))
    n[0] &= 248
    n[31] = n[31] & 127 | 64
    return bytes(n)


class Party:
    """Secrets of a party, and the package's view of them."""

    def __init__(self, form, kind, encoding, with_opk):
        self.identity = scalar() if kind == "priv" else secrets.token_bytes(32)
        self.spk, self.opks = scalar(), [scalar()] if with_opk else []
        self.form, self.kind, self.encoding = form, kind, encoding

    def state(self, hash_function, info):
        priv = self.identity if self.kind == "priv" else xeddsa.seed_to_priv(self.identity)
        if self.form == "CURVE_25519":
            priv = xeddsa.priv_force_sign(priv, False)
        cls = ENCODINGS[self.encoding]
        message = cls._encode_public_key(None, xeddsa.priv_to_curve25519_pub(self.spk))
        return cls.from_model(
            BaseStateModel(
                identity_key=IdentityKeyPairModel(
                    secret=self.identity, secret_type=SecretType[self.kind.upper()]),
                signed_pre_key=SignedPreKeyPairModel(
                    priv=self.spk, sig=xeddsa.ed25519_priv_sign(priv, message), timestamp=0),
                old_signed_pre_key=None,
                pre_keys=frozenset(self.opks)),
            IdentityKeyFormat[self.form], x3dh.HashFunction[hash_function], info)

    def fields(self):
        return dict(
            format=self.form, encode=self.encoding, identity={self.kind: self.identity},
            signed_pre_key={"priv": self.spk}, pre_keys=self.opks)


def of_json(bundle):
    raw = bytes.fromhex
    return x3dh.Bundle(
        raw(bundle["identity_key"]), raw(bundle["signed_pre_key"]),
        raw(bundle["signed_pre_key_sig"]), frozenset(map(raw, bundle["pre_keys"])))


def to_json(bundle):
    return dict(
        identity_key=bundle.identity_key, signed_pre_key=bundle.signed_pre_key,
        signed_pre_key_sig=bundle.signed_pre_key_sig, pre_keys=sorted(bundle.pre_keys))


def header_to_json(header):
    return dict(
        identity_key=header.identity_key, ephemeral_key=header.ephemeral_key,
        signed_pre_key=header.signed_pre_key, pre_key=header.pre_key)


async def package_starts(oncekey, form, kind, hash_function, encoding, with_opk):
    info, ad = secrets.token_bytes(20), secrets.token_bytes(10)
    alice, bob = Party(form, kind, encoding, False), Party(form, kind, encoding, with_opk)
    bundle = of_json(oncekey.good("bundle", **bob.fields())["bundle"])
    sk, full_ad, header = await alice.state(hash_function, info).get_shared_secret_active(
        bundle, ad, require_pre_key=with_opk)
    answer = oncekey.good(
        "bob", **bob.fields(), header=header_to_json(header), hash=hash_function, info=info, ad=ad)
    assert (answer["sk"], answer["ad"]) == (sk.hex(), full_ad.hex())
    forged = bundle._replace(signed_pre_key_sig=bytes(64))
    try:
        await alice.state(hash_function, info).get_shared_secret_active(
            forged, ad, require_pre_key=with_opk)
        raise AssertionError("the package takes a forged bundle")
    except x3dh.KeyAgreementException:
        pass


async def oncekey_starts(oncekey, form, kind, hash_function, encoding, with_opk):
    info, ad = secrets.token_bytes(20), secrets.token_bytes(10)
    alice, bob = Party(form, kind, encoding, False), Party(form, kind, encoding, with_opk)
    state = bob.state(hash_function, info)
    bundle = to_json(state.bundle)
    fields = alice.fields()
    fields = {key: fields[key] for key in ("format", "encode", "identity")}
    fields.update(hash=hash_function, info=info, ad=ad)
    answer = oncekey.good("alice", **fields, bundle=bundle)
    raw = lambda text: None if text is None else bytes.fromhex(text)
    header = x3dh.Header(*(raw(answer["header"][key]) for key in (
        "identity_key", "ephemeral_key", "signed_pre_key", "pre_key")))
    sk, full_ad, _ = await state.get_shared_secret_passive(header, ad, require_pre_key=with_opk)
    assert (answer["sk"], answer["ad"]) == (sk.hex(), full_ad.hex())
    forged = oncekey.ask("alice", **fields, bundle={**bundle, "signed_pre_key_sig": bytes(64)})
    assert forged.get("code") == "signature_invalid", forged


async def main(program, rounds):
    oncekey = Oncekey(program)
    for _ in range(rounds):
        for choice in CHOICES:
            for direction in (package_starts, oncekey_starts):
                try:
                    await direction(oncekey, *choice)
                except Exception as error:
                    raise SystemExit(f"{direction.__name__} {choice}: {error!r}") from error
    each = rounds * len(CHOICES)
    print(f"{each} handshakes started by the package and {each} by Oncekey agree; "
          f"{2 * each} forged bundles were refused")


if __name__ == "__main__":
    asyncio.run(main(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
