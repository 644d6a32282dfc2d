"""Vectors of the plain profile, computed by the package X3DH.

    pip install X3DH && python3 plain.py

writes plain.json beside itself: every combination of the form of the identity keys, their secret
(seed or scalar), the hash, with and without a one-time prekey, and the encoding of keys. The
package draws its own randomness; here it is fixed.
"""

import asyncio
import hashlib
import itertools
import json
import pathlib

import xeddsa
import x3dh
import x3dh.base_state
from x3dh.models import BaseStateModel, IdentityKeyPairModel, SignedPreKeyPairModel
from x3dh.types import IdentityKeyFormat, SecretType

HERE = pathlib.Path(__file__).parent
HASHES = {"sha256": x3dh.HashFunction.SHA_256, "sha512": x3dh.HashFunction.SHA_512}
FORMATS = {"ed25519": IdentityKeyFormat.ED_25519, "curve25519": IdentityKeyFormat.CURVE_25519}


def secret(name):
    return hashlib.sha256(b"oncekey test secret " + name.encode()).digest()


def scalar(name):
    """A clamped scalar: the package signs wrongly with any other."""
    n = bytearray(secret(name))
    n[0] &= 248
    n[31] = n[31] & 127 | 64
    return bytes(n)


class Raw(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format, pub):
        return pub


class Djb05(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format, pub):
        return b"\x05" + pub


ENCODINGS = {"raw": Raw, "djb05": Djb05}


def state(form, kind, hash_function, encoding, info, identity, spk, opks):
    """A party whose every secret is given."""
    priv = identity if kind == "priv" else xeddsa.seed_to_priv(identity)
    if FORMATS[form] is IdentityKeyFormat.CURVE_25519:
        priv = xeddsa.priv_force_sign(priv, False)
    message = ENCODINGS[encoding]._encode_public_key(None, xeddsa.priv_to_curve25519_pub(spk))
    sig = xeddsa.ed25519_priv_sign(priv, message, nonce=hashlib.sha512(spk).digest())
    return ENCODINGS[encoding].from_model(
        BaseStateModel(
            identity_key=IdentityKeyPairModel(secret=identity, secret_type=SecretType[kind.upper()]),
            signed_pre_key=SignedPreKeyPairModel(priv=spk, sig=sig, timestamp=0),
            old_signed_pre_key=None,
            pre_keys=frozenset(opks)),
        FORMATS[form], HASHES[hash_function], info)


def vector(form, kind, hash_function, with_opk, encoding):
    name = "_".join([form, kind, hash_function, "opk" if with_opk else "no_opk", encoding])
    info, ad = b"Oncekey vectors " + name.encode(), b"appendix of " + name.encode()
    draw = scalar if kind == "priv" else secret
    ik_a, ik_b = draw("ik_a " + name), draw("ik_b " + name)
    spk, opk, ek = secret("spk " + name), secret("opk " + name), secret("ek " + name)
    opks = [opk] if with_opk else []
    alice = state(form, kind, hash_function, encoding, info, ik_a, secret("unused"), [])
    bob = state(form, kind, hash_function, encoding, info, ik_b, spk, opks)

    class Fixed:
        choice = staticmethod(lambda keys: keys[0])
        token_bytes = staticmethod(lambda n: ek[:n])

    x3dh.base_state.secrets = Fixed
    sk, full_ad, header = asyncio.run(
        alice.get_shared_secret_active(bob.bundle, ad, require_pre_key=with_opk))
    again, again_ad, _ = asyncio.run(
        bob.get_shared_secret_passive(header, ad, require_pre_key=with_opk))
    assert (sk, full_ad) == (again, again_ad)
    out = dict(name=name, format=form, kind=kind, hash=hash_function, encoding=encoding,
               info=info, ad=ad, ik_a=ik_a, ik_b=ik_b, spk=spk, ek=ek)
    if with_opk:
        out["opk"] = opk
    out["expect"] = dict(
        ik_a_public=header.identity_key, ik_b_public=bob.bundle.identity_key,
        ek_public=header.ephemeral_key, spk_public=header.signed_pre_key,
        opk_public=header.pre_key, signature=bob.bundle.signed_pre_key_sig, sk=sk, ad=full_ad)
    return out


def hexed(value):
    if isinstance(value, dict):
        return {name: hexed(inner) for name, inner in value.items()}
    return value.hex() if isinstance(value, bytes) else value


if __name__ == "__main__":
    vectors = [hexed(vector(*choice)) for choice in itertools.product(
        FORMATS, ("seed", "priv"), HASHES, (True, False), ENCODINGS)]
    (HERE / "plain.json").write_text(json.dumps(vectors, indent=1) + "\n")
