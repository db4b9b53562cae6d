"""Signed tokens (P14): JWTs (RFC 7519) over Ed25519 (RFC 8037), and what is nearly one."""

import base64
import json
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def _part(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Signer:
    """Signs with one key, of which the server knows the public half."""

    def __init__(self, key, kid):
        self.key = key
        self.kid = kid

    @classmethod
    def of_development(cls, data):
        """With the key that a server makes in its data directory."""
        key = load_pem_private_key((data / "token-key.pem").read_bytes(), None)
        return cls(key, json.loads((data / "jwks.json").read_text())["keys"][0]["kid"])

    @classmethod
    def new(cls, kid):
        return cls(Ed25519PrivateKey.generate(), kid)

    def public(self):
        """Its public half, as a JWK."""
        x = _part(self.key.public_key().public_bytes_raw()).decode()
        return {"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}

    def token(self, user, header=None, without=(), **claims):
        """A token for `user`; claims and header fields replace those of a good one."""
        head = {"alg": "EdDSA", "typ": "JWT", "kid": self.kid} | (header or {})
        body = {"sub": str(user), "iss": "roadstead", "aud": "roadstead", "exp": int(time.time()) + 3600}
        body |= claims
        for name in without:
            head.pop(name, None)
            body.pop(name, None)
        signed = _part(head) + b"." + _part(body)
        return (signed + b"." + _part(self.key.sign(signed))).decode()
