"""Signed tokens (P14): JWTs (RFC 7519) over Ed25519 (RFC 8037), and what is nearly one."""

import base64
import json
import time

from cryptography.hazmat.primitives.serialization import load_pem_private_key


def _part(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Signer:
    """Signs with the development key that a server makes in its data directory."""

    def __init__(self, data):
        self.key = load_pem_private_key((data / "token-key.pem").read_bytes(), None)
        self.kid = json.loads((data / "jwks.json").read_text())["keys"][0]["kid"]

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
