"""Makes the sample of a release: a store as its server leaves it, and what a client must find in it.

    python3 verify/releases/make.py --server PATH --out verify/releases/VERSION

PATH is the release's `roadstead`. Needs the packages of interop/python (`cargo xtask interop` makes an environment with
them) and the tools tar and zstd. Makes two stores: `stopped`, whose server was told to stop, and `killed`, whose server
was killed with what it had acknowledged in its log alone.
"""

import argparse
import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "interop/python"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

from client import ids  # noqa: E402
from client.ledger import Ledger  # noqa: E402
from client.schema import Schema  # noqa: E402
from client.tokens import Signer  # noqa: E402
from walk.checks import Stage, World  # noqa: E402

ALICE, BOB, CAROL = 1001, 1002, 1003
# Whose inboxes are looked at. Bob's second device never acknowledges anything.
DEVICES = [(ALICE, 1), (BOB, 1), (BOB, 2), (CAROL, 1)]


# What stands before the 32 bytes of an Ed25519 key (RFC 8410 section 7): two octet strings.
SEED = b"\x04\x22\x04\x20"


class Sample:
    def __init__(self, stage, server):
        self.stage = stage
        self.server = server
        self.answers = []
        # The last payload to each user.
        self.last = {}
        self.numbers = {}

    async def login(self, user, device):
        return await self.stage.login(user, device, server=self.server)

    async def say(self, session, sender, recipient, payload):
        user, device = sender
        number = self.numbers[sender] = self.numbers.get(sender, 0) + 1
        chat = ids.chat(user, recipient)
        session.send(number, chat, payload)
        result = await session.result(number)
        self.last[recipient] = payload
        self.answers.append(
            f"answer {user} {device} {number} {chat.hex()} {payload.hex()} {result.message_id} {result.position.hex()}"
        )
        return result

    async def fill(self):
        """Messages that wait and that do not, receipts, marks, an own message on another device."""
        alice = await self.login(ALICE, 1)
        bob = await self.login(BOB, 1)
        for device in (await self.login(BOB, 2), await self.login(CAROL, 1)):
            await self.stage.leave(device)
        for n in range(24):
            await self.say(alice, (ALICE, 1), BOB, f"message {n}".encode() + bytes([n]) * (8 * n))
        for _ in range(12):
            read = (await bob.want("deliver")).cursor
        bob.ack(read)
        await alice.want("receipt_update", where=lambda it: it.delivered == read)
        bob.say("read", chat=ids.chat(ALICE, BOB), position=read)
        await alice.want("receipt_update", where=lambda it: it.read == read)
        for n in range(3):
            await self.say(bob, (BOB, 1), ALICE, f"answer {n}".encode())
        for n in range(5):
            await self.say(alice, (ALICE, 1), CAROL, f"to carol {n}".encode())
        for session in (alice, bob):
            await self.stage.leave(session)

    async def again(self):
        alice = await self.login(ALICE, 1)
        for n in range(6):
            await self.say(alice, (ALICE, 1), CAROL, f"late {n}".encode())

    async def look(self):
        """What waits for each device, up to the last message said to it, without acknowledging any of it."""
        lines = []
        for user, device in DEVICES:
            session = await self.login(user, device)
            last = None
            while last != self.last[user]:
                kind, it = await session.next()
                last = it.envelope.payload if kind == "deliver" else last
                lines += [LINES[kind](user, device, it)] if kind in LINES else []
            await self.stage.leave(session)
        return lines


def delivered(user, device, it):
    e = it.envelope
    return (
        f"deliver {user} {device} {it.cursor.hex()} {e.chat.hex()} {e.sender} {e.sender_device} {e.number} "
        f"{e.message_id} {e.payload.hex()}"
    )


def told(user, device, it):
    return (
        f"receipt {user} {device} {it.cursor.hex()} {it.chat.hex()} {it.user} {it.delivered.hex() or '-'} "
        f"{it.read.hex() or '-'}"
    )


LINES = {"deliver": delivered, "receipt_update": told}


class Dated(Signer):
    """Its tokens say when they were issued: 0.1.0 wants to know."""

    def token(self, user, **claims):
        return super().token(user, iat=int(time.time()), **claims)


def of_development(data):
    """The key that a server makes in its data directory; that of 0.1.0 is in a form that OpenSSL does not read."""
    text = (data / "token-key.pem").read_text()
    der = base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-")))
    seed = der.index(SEED) + len(SEED)
    kid = json.loads((data / "jwks.json").read_text())["keys"][0]["kid"]
    return Dated(Ed25519PrivateKey.from_private_bytes(der[seed:seed + 32]), kid)


def pack(folder, out, name):
    """The store, without what belongs to this run alone."""
    tar = ["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C", str(folder), "-cf", "-", "store"]
    packed = subprocess.run(tar, stdout=subprocess.PIPE, check=True)
    with (out / f"{name}.tar.zst").open("wb") as file:
        subprocess.run(["zstd", "-19", "-c"], input=packed.stdout, stdout=file, check=True)


async def make(server, out):
    folder = Path(tempfile.mkdtemp(prefix="roadstead-sample-"))
    schema = Schema((ROOT / "proto/schema/roadstead/v1/session.proto").read_text())
    Signer.of_development = of_development
    world = World(str(server), ROOT, folder, "lean", schema, Ledger(schema))
    stage = Stage(world)
    try:
        own = await world.own_server("plain")
        sample = Sample(stage, own)
        await sample.fill()
        own.drain()
        await own.gone()
        pack(own.data, out, "stopped")
        await own.start()
        write(out, "stopped", sample.answers + await sample.look())
        await sample.again()
        await own.stop()
        pack(own.data, out, "killed")
        await own.start()
        write(out, "killed", sample.answers + await sample.look())
        await own.stop()
    finally:
        await stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def write(out, name, lines):
    (out / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(options.server.resolve(), options.out))


main()
