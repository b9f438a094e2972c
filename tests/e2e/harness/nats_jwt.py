"""A NATS server that knows its users by JWTs: an operator, an account with JetStream, a user, and the user's credentials.

Source: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>.
"""

import base64
import binascii
import json
import subprocess
import time
from pathlib import Path

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3
"""The first bytes of keys of each kind."""


def _text(raw: bytes) -> str:
    """A key with its checksum."""
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


class Key:
    """A pair of Ed25519 keys in a file of the folder."""

    def __init__(self, folder: Path, name: str, kind: int):
        self.file = folder / f"{name}.pem"
        run = subprocess.check_output
        run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.file])
        secret = run(["openssl", "pkey", "-in", self.file, "-outform", "DER"])[-32:]
        self.public = _text(bytes([kind]) + run(["openssl", "pkey", "-in", self.file, "-pubout", "-outform", "DER"])[-32:])
        self.seed = _text(bytes([SEED | kind >> 5, (kind & 31) << 3]) + secret)

    def sign(self, message: bytes) -> bytes:
        to_sign = self.file.with_suffix(".message")
        to_sign.write_bytes(message)
        return subprocess.check_output(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.file, "-in", to_sign])

    def jwt(self, subject: "Key", name: str, **claims) -> str:
        """What this key says of another."""
        body = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public,
                "nats": claims | {"version": 2}}
        signed = ".".join(_part(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{signed}.{_part(self.sign(signed.encode()))}"


class Users:
    """One user, who may do everything in one account, and one whom another operator vouches for."""

    def __init__(self, folder: Path):
        operator, self.user = Key(folder, "operator", OPERATOR), Key(folder, "user", USER)
        account, system = Key(folder, "account", ACCOUNT), Key(folder, "system", ACCOUNT)
        most = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn", "leaf")} | {"wildcards": True}
        stored = {name: -1 for name in ("mem_storage", "disk_storage", "streams", "consumer")}
        accounts = {account.public: operator.jwt(account, "account", type="account", limits=most | stored),
                    system.public: operator.jwt(system, "SYS", type="account", limits=most)}
        self.jwt = account.jwt(self.user, "user", type="user", pub={}, sub={}, subs=-1, data=-1, payload=-1)
        self.strangers_jwt = Key(folder, "stranger", ACCOUNT).jwt(self.user, "user", type="user", pub={}, sub={}, subs=-1,
                                                                 data=-1, payload=-1)
        of_operator = operator.jwt(operator, "operator", type="operator")
        preloaded = "\n".join(f"  {name}: {said}" for name, said in accounts.items())
        self.config = (f"operator: {of_operator}\nsystem_account: {system.public}\nresolver: MEMORY\n"
                       f"resolver_preload: {{\n{preloaded}\n}}\n")
        self.creds = folder / "user.creds"
        self.creds.write_text(
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.user.seed}\n------END USER NKEY SEED------\n")

    def login(self) -> dict:
        """How a client of Python's logs in."""
        return {"user_jwt_cb": self.jwt.encode, "signature_cb": lambda nonce: base64.b64encode(self.user.sign(nonce.encode()))}
