"""Runs every check and prints the counts."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from client.ledger import Ledger
from client.schema import Schema

from . import canary, closing, framing, inbox, opening, receipts, sending, transport
from .checks import CHECKS, World, play
from .coverage import missing

# At once: most of a check is waiting.
AT_ONCE = 8
MODULES = (canary, transport, framing, opening, sending, inbox, receipts, closing)


async def walk(world, only):
    for module in MODULES:
        if hasattr(module, "register"):
            module.register(world)
    chosen = [it for it in CHECKS if only in f"{it.rules} {it.name}"]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(it):
        async with room:
            return await play(world, it)

    running = [asyncio.create_task(one(it)) for it in chosen]
    failed = 0
    for it, task in zip(chosen, running):
        finding = await task
        failed += finding is not None
        mark = "ok  " if finding is None else "FAIL"
        print(f"{mark} {it.rules}: {it.name}" + (f"\n     {finding}" if finding else ""), flush=True)
    for server in world.servers.values():
        await server.stop()
    return len(chosen), failed


def main():
    parser = argparse.ArgumentParser(prog="walk")
    parser.add_argument("--server", required=True, help="the program roadstead")
    parser.add_argument("--repository", type=Path, required=True, help="where proto/ is")
    parser.add_argument("--engine", default="lean", help="the server's QUIC engine")
    parser.add_argument("--only", default="", help="checks whose rules or name contain this")
    options = parser.parse_args()
    schema = Schema((options.repository / "proto/schema/roadstead/v1/session.proto").read_text())
    ledger = Ledger(schema)
    with tempfile.TemporaryDirectory(prefix="roadstead-walk-") as folder:
        world = World(options.server, options.repository, Path(folder), options.engine, schema, ledger)
        checks, failed = asyncio.run(walk(world, options.only))
    lacking = [] if options.only else missing(ledger, checks)
    for line in lacking:
        print(f"FAIL {line}")
    kinds = sum(1 for kind in ledger.kinds() if ledger.frames[kind])
    fields = sum(1 for it in ledger.all_fields() if ledger.fields[it])
    codes = sum(1 for code in schema.enums["ErrorCode"].values() if ledger.codes[code])
    print(
        f"{checks} checks, {failed} failed; {ledger.frames.total()} frames of {kinds} of {len(ledger.kinds())} kinds, "
        f"{fields} of {len(ledger.all_fields())} fields, {codes} of {len(schema.enums['ErrorCode'])} codes"
    )
    return 1 if failed or lacking or not checks else 0


sys.exit(main())
