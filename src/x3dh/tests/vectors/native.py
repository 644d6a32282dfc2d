"""Vectors of the native profile, computed without a line of the Rust code.

    pip install cryptography pynacl && python3 native.py

writes native.json, signed.json and refused.json beside itself. X25519, Ed25519, HKDF and
ChaCha20-Poly1305 come from `cryptography` (OpenSSL), the map from Ed25519 to X25519 from `pynacl`
(libsodium); the bad points come from the curve arithmetic at the end of this file.
"""

import hashlib
import json
import pathlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519

HERE = pathlib.Path(__file__).parent
SUITE = 1


def u8(n): return struct.pack(">B", n)
def u16(n): return struct.pack(">H", n)
def u32(n): return struct.pack(">I", n)
def u64(n): return struct.pack(">Q", n)
def lp(x): return u16(len(x)) + x
def sha256(x): return hashlib.sha256(x).digest()


def secret(name):
    return sha256(b"oncekey test secret " + name.encode())


def ed_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def ed_sign(seed, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def ed_scalar(seed):
    return hashlib.sha512(seed).digest()[:32]


def x_public(priv):
    return X25519PrivateKey.from_private_bytes(priv).public_key().public_bytes_raw()


def dh(priv, public):
    return X25519PrivateKey.from_private_bytes(priv).exchange(
        X25519PublicKey.from_public_bytes(public))


def handshake(v):
    """All values of one handshake, from Alice's side and from Bob's."""
    user_a, user_b = bytes.fromhex(v["userA"]), bytes.fromhex(v["userB"])
    seed_a, seed_b = bytes.fromhex(v["ikA_seed"]), bytes.fromhex(v["ikB_seed"])
    ek, spk = bytes.fromhex(v["ekA_priv"]), bytes.fromhex(v["spk_priv"])
    opk = bytes.fromhex(v["opk_priv"]) if "opk_priv" in v else None
    app_ad, payload = bytes.fromhex(v["app_ad"]), bytes.fromhex(v["payload"])
    ik_a, ik_b, ek_a, spk_b = ed_public(seed_a), ed_public(seed_b), x_public(ek), x_public(spk)
    opk_b = x_public(opk) if opk else None

    ctx = (lp(b"Oncekey v1") + u16(SUITE) + lp(user_a) + u32(v["devA"]) + lp(user_b)
           + u32(v["devB"]) + lp(ik_a) + lp(ik_b) + lp(ek_a) + u32(v["spk_id"]) + lp(spk_b))
    ctx += b"\x01" + u32(v["opk_id"]) + lp(opk_b) if opk else b"\x00"
    ctx += b"\x00" + lp(app_ad)
    th = sha256(ctx)

    mont_a = crypto_sign_ed25519_pk_to_curve25519(ik_a)
    mont_b = crypto_sign_ed25519_pk_to_curve25519(ik_b)
    alice = [dh(ed_scalar(seed_a), spk_b), dh(ek, mont_b), dh(ek, spk_b)]
    bob = [dh(spk, mont_a), dh(ed_scalar(seed_b), ek_a), dh(spk, ek_a)]
    if opk:
        alice.append(dh(ek, opk_b))
        bob.append(dh(opk, ek_a))
    assert alice == bob

    sk = HKDF(hashes.SHA256(), 32, bytes(32), b"Oncekey v1 SK" + th).derive(
        b"\xff" * 32 + b"".join(alice))
    okm = HKDFExpand(hashes.SHA256(), 96, b"Oncekey v1 keys" + th).derive(sk)
    k_init, rk, ck0 = okm[:32], okm[32:64], okm[64:]
    ct = ChaCha20Poly1305(k_init).encrypt(bytes(12), payload, th)
    dedup = sha256(b"Oncekey v1 dedup" + ik_a + ek_a + spk_b + (opk_b or b""))
    message = (u8(1) + u16(SUITE) + u8(1 if opk else 0) + lp(user_a) + u32(v["devA"])
               + lp(user_b) + u32(v["devB"]) + ik_a + ek_a + u32(v["spk_id"])
               + (u32(v["opk_id"]) if opk else b"") + u32(len(ct)) + ct)
    out = dict(IK_A=ik_a, IK_B=ik_b, EK_A=ek_a, SPK_B=spk_b, ctx=ctx, th=th, sk=sk,
               k_init=k_init, rk=rk, ck0=ck0, dedup=dedup, ct=ct, message=message)
    return {name: value.hex() for name, value in out.items()}


def inputs(name, *, opk=True, **changes):
    v = dict(name=name, userA=b"alice".hex(), devA=1, userB=b"bob".hex(), devB=2,
             ikA_seed=secret("ik_a " + name).hex(), ekA_priv=secret("ek_a " + name).hex(),
             ikB_seed=secret("ik_b " + name).hex(),
             spk_id=7, spk_priv=secret("spk_b " + name).hex())
    if opk:
        v |= dict(opk_id=41, opk_priv=secret("opk_b " + name).hex())
    v |= dict(app_ad="", payload=b"hello, bob".hex())
    return v | changes


def native():
    every = [
        inputs("with_opk"),
        inputs("without_opk", opk=False),
        inputs("with_app_ad", app_ad=b"an application's own data".hex()),
        inputs("without_opk_with_app_ad", opk=False, app_ad="00ff"),
        inputs("app_ad_over_255_bytes", app_ad=(b"\x5a" * 300).hex()),
        inputs("empty_payload", payload=""),
        inputs("payload_over_255_bytes", payload=(b"long " * 200).hex()),
        inputs("longest_user_ids", userA=(b"a" * 255).hex(), userB=(b"b" * 255).hex()),
        inputs("user_ids_that_are_not_utf8", userA="ff00fe", userB="80"),
        inputs("two_devices_of_one_user", userA=b"carol".hex(), userB=b"carol".hex()),
        inputs("lowest_numbers", devA=0, devB=0, spk_id=0, opk_id=0),
        inputs("highest_numbers", devA=2**32 - 1, devB=2**32 - 1, spk_id=2**32 - 1,
               opk_id=2**32 - 1),
        inputs("non_ascii_user_ids", userA="älice".encode().hex(), userB="böb".encode().hex()),
    ]
    return [v | {"expect": handshake(v)} for v in every]


# --- what is signed -------------------------------------------------------------------------

def owner(label, user, device, ik):
    return lp(label) + lp(user) + u32(device) + lp(ik)


def device_list(user, seq, prev, devices):
    entries = b"".join(u32(d) + u8(1) + lp(ik) + lp(ak) + u64(at) for d, ik, ak, at in devices)
    return lp(user) + u64(seq) + prev + u16(len(devices)) + entries


def signed():
    user, device = "bøb".encode(), 9
    seed, ik = secret("signing ik"), ed_public(secret("signing ik"))
    spk, opk = secret("signing spk"), secret("signing opk")
    ak = ed_public(secret("signing ak"))
    created, expires = 1_790_000_000, 1_797_776_000
    account = secret("signing uk")
    entries = [(1, ed_public(secret("l ik 1")), ed_public(secret("l ak 1")), created),
               (2**32 - 1, ed_public(secret("l ik 2")), ed_public(secret("l ak 2")), created + 5)]
    label = lp(b"Oncekey v1 devices")
    first = device_list(user, 1, bytes(32), entries[:1])
    second = device_list(user, 2, sha256(label + first), entries)
    common = dict(user=user.hex(), device=device, ik_seed=seed.hex())
    return [
        common | dict(
            name="signed_prekey", id=3, priv=spk.hex(), created=created, expires=expires,
            signature=ed_sign(seed, owner(b"Oncekey v1 SPK", user, device, ik) + u32(3)
                              + u64(created) + u64(expires) + lp(x_public(spk))).hex()),
        common | dict(
            name="one_time_prekey", id=2**32 - 1, priv=opk.hex(),
            signature=ed_sign(seed, owner(b"Oncekey v1 OPK", user, device, ik) + u32(2**32 - 1)
                              + lp(x_public(opk))).hex()),
        common | dict(
            name="authentication_key", key=ak.hex(),
            signature=ed_sign(seed, owner(b"Oncekey v1 AK", user, device, ik) + lp(ak)).hex()),
        dict(name="first_device_list", uk_seed=account.hex(), bytes=first.hex(),
             hash=sha256(label + first).hex(), signature=ed_sign(account, label + first).hex()),
        dict(name="second_device_list", uk_seed=account.hex(), bytes=second.hex(),
             hash=sha256(label + second).hex(), signature=ed_sign(account, label + second).hex()),
        dict(name="safety_number", keys=[ed_public(account).hex(), ak.hex()],
             users=[b"alice".hex(), user.hex()],
             number=safety_number((ed_public(account), b"alice"), (ak, user))),
    ]


def safety_number(*sides):
    halves = []
    for key, user in sides:
        key = b"\x06" + key
        h = hashlib.sha512(b"\x00\x00" + key + user + key).digest()
        for _ in range(5199):
            h = hashlib.sha512(h + key).digest()
        halves.append("".join("%05d" % (int.from_bytes(h[i:i + 5], "big") % 100_000)
                              for i in range(0, 30, 5)))
    return "".join(sorted(halves))


# --- what is refused ------------------------------------------------------------------------

def refused():
    """Bad keys, and messages that differ from a good one in one field."""
    keys = []

    def key(name, form, value, error):
        keys.append(dict(name=name, form=form, key=value.hex(), error=error))

    good = decompress(ed_public(secret("refused ik")))
    for n, point in enumerate(torsion()):
        key(f"ed25519_low_order_{n}", "ed25519", compress(point), "low_order")
        if n:
            key(f"ed25519_torsion_sibling_{n}", "ed25519", compress(add(good, point)), "torsion")
    for y in range(P, 2**255):
        for sign in (0, 1):
            encoded = (y | sign << 255).to_bytes(32, "little")
            if decompress(encoded):
                key(f"ed25519_non_canonical_{y - P}_{sign}", "ed25519", encoded, "not_canonical")
    for sign in (0, 1):  # x = 0 has no sign: dalek and ZIP 215 decompress it all the same
        if sign:
            key("ed25519_negative_zero_1", "ed25519", (1 | 1 << 255).to_bytes(32, "little"),
                "not_canonical")
            key("ed25519_negative_zero_p_minus_1", "ed25519",
                (P - 1 | 1 << 255).to_bytes(32, "little"), "not_canonical")
    y = next(y for y in range(2, 100) if decompress(y.to_bytes(32, "little")) is None)
    key("ed25519_not_on_the_curve", "ed25519", y.to_bytes(32, "little"), "not_on_curve")
    u = bytearray(x_public(secret("refused x25519")))
    u[31] |= 0x80
    key("x25519_bit_255_set", "x25519", bytes(u), "not_canonical")
    for n in (0, 1, 9, 18):
        key(f"x25519_p_plus_{n}", "x25519", (P + n).to_bytes(32, "little"), "not_canonical")
    for n, u in enumerate(sorted({montgomery(point) for point in torsion()} | {P - 1})):
        key(f"x25519_low_order_{n}", "x25519", u.to_bytes(32, "little"), "low_order")
    key("x25519_short", "x25519", bytes([9]) * 31, "length")
    key("ed25519_long", "ed25519", bytes(33), "length")
    return dict(keys=keys, **tampered())


def tampered():
    v = inputs("tampered")
    message = bytes.fromhex(handshake(v)["message"])
    at = {}
    offset = 0
    for field, size in [("version", 1), ("suite", 2), ("flags", 1), ("lp userA", 2), ("userA", 5),
                        ("devA", 4), ("lp userB", 2), ("userB", 3), ("devB", 4), ("IK_A", 32),
                        ("EK_A", 32), ("spk_id", 4), ("opk_id", 4), ("len", 4),
                        ("ct", 10), ("tag", 16)]:
        at[field] = (offset, offset + size)
        offset += size
    assert offset == len(message)

    def put(field, value):
        start, end = at[field]
        return message[:start] + value + message[end:]

    def flip(field):
        start, _ = at[field]
        return message[:start] + bytes([message[start] ^ 1]) + message[start + 1:]

    ik_a = decompress(message[slice(*at["IK_A"])])
    sibling = compress(add(ik_a, torsion()[3]))
    ek_a = message[slice(*at["EK_A"])]
    stripped = put("opk_id", b"")
    stripped = stripped[:at["flags"][0]] + b"\x00" + stripped[at["flags"][1]:]
    other = inputs("another")
    cases = [
        ("untouched", message, "opens"),
        ("version_2", put("version", u8(2)), "malformed"),
        ("version_0", put("version", u8(0)), "malformed"),
        ("suite_2", put("suite", u16(2)), "malformed"),
        ("flag_pq", put("flags", u8(0b11)), "malformed"),
        ("flag_unknown", put("flags", u8(0x81)), "malformed"),
        ("flag_opk_cleared", put("flags", u8(0)), "malformed"),
        ("opk_stripped", stripped, "aead_failed"),
        ("sender_renamed", put("userA", b"mally"), "aead_failed"),
        ("sender_shortened", put("lp userA", u16(4)), "malformed"),
        ("sender_on_another_device", put("devA", u32(3)), "aead_failed"),
        ("recipient_renamed", put("userB", b"rob"), "wrong_recipient"),
        ("recipient_on_another_device", put("devB", u32(3)), "wrong_recipient"),
        ("identity_of_another", put("IK_A", ed_public(secret("mally"))), "aead_failed"),
        ("identity_torsion_sibling", put("IK_A", sibling), "malformed"),
        ("identity_not_canonical", put("IK_A", (P + 3).to_bytes(32, "little")), "malformed"),
        ("identity_of_low_order", put("IK_A", compress(torsion()[1])), "malformed"),
        ("ephemeral_of_another", put("EK_A", x_public(secret("mally"))), "aead_failed"),
        ("ephemeral_bit_255", put("EK_A", ek_a[:31] + bytes([ek_a[31] | 0x80])), "malformed"),
        ("ephemeral_zero", put("EK_A", bytes(32)), "malformed"),
        ("signed_prekey_of_another_id", put("spk_id", u32(8)), "spk_unknown"),
        ("one_time_prekey_of_another_id", put("opk_id", u32(42)), "opk_missing"),
        ("length_too_short", put("len", u32(25)), "malformed"),
        ("length_too_long", put("len", u32(27)), "malformed"),
        ("length_huge", put("len", u32(2**32 - 1)), "malformed"),
        ("ciphertext_flipped", flip("ct"), "aead_failed"),
        ("tag_flipped", flip("tag"), "aead_failed"),
        ("ciphertext_of_another_message",
         message[:at["ct"][0]] + bytes.fromhex(handshake(other)["ct"]), "aead_failed"),
        ("trailing_byte", message + b"\x00", "malformed"),
        ("truncated", message[:-1], "malformed"),
        ("empty", b"", "malformed"),
    ]
    return dict(base=v, messages=[dict(name=n, message=m.hex(), outcome=o) for n, m, o in cases])


# --- edwards25519, slow and plain -----------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def decompress(encoded):
    """The point of an encoding, y taken modulo p; None when there is none."""
    n = int.from_bytes(encoded, "little")
    sign, y = n >> 255, (n & (1 << 255) - 1) % P
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if x * x % P != x2:
        x = x * SQRT_M1 % P
    if x * x % P != x2:
        return None
    return (P - x if x and x & 1 != sign else x, y)


def compress(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add(p, q):
    (x1, y1), (x2, y2) = p, q
    t = D * x1 * x2 * y1 * y2 % P
    return ((x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P,
            (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P)


def mul(n, point):
    result = (0, 1)
    for bit in bin(n)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def montgomery(point):
    _, y = point
    return (1 + y) * pow(1 - y, -1, P) % P if y != 1 else 0


def torsion():
    """The eight points of low order; the first is the neutral element."""
    for y in range(2, 100):
        point = decompress(y.to_bytes(32, "little"))
        if point:
            generator = mul(L, point)
            if mul(4, generator) != (0, 1):
                return [mul(n, generator) for n in range(8)]
    raise AssertionError("no point of order eight")


def write(name, content):
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    write("native.json", native())
    write("signed.json", signed())
    write("refused.json", refused())
