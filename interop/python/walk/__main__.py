"""Runs every check and prints the counts."""

import argparse
import asyncio
import shutil
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
    """Every check that is asked for: how many there were, and how many lines say FAIL."""
    for module in MODULES:
        if hasattr(module, "register"):
            module.register(world)
    chosen = [it for it in CHECKS if only in f"{it.rules} {it.name}"]
    strays = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, it: strays.append(it))
    try:
        failed = await play_all(world, chosen)
        for server in world.servers.values():
            failed += told(await server.farewell(), "the server outlives the walk")
    finally:
        for server in world.servers.values():
            await server.stop()
    failed += sum(told(repr(it), "an exception that no check took") for it in strays)
    return len(chosen), failed


async def play_all(world, chosen):
    room = asyncio.Semaphore(AT_ONCE)

    async def one(it):
        async with room:
            return await play(world, it)

    running = [asyncio.create_task(one(it)) for it in chosen]
    failed = 0
    for it, task in zip(chosen, running, strict=True):
        failed += told(await task, f"{it.rules}: {it.name}")
    return failed


def told(finding, name):
    mark = "ok  " if finding is None else "FAIL"
    print(f"{mark} {name}" + (f"\n     {finding}" if finding else ""), flush=True)
    return finding is not None


def main():
    parser = argparse.ArgumentParser(prog="walk")
    parser.add_argument("--server", required=True, help="the program roadstead")
    parser.add_argument("--repository", type=Path, required=True, help="where proto/ is")
    parser.add_argument("--engine", default="lean", help="the server's QUIC engine")
    parser.add_argument("--only", default="", help="checks whose rules or name contain this")
    options = parser.parse_args()
    schema = Schema((options.repository / "proto/schema/roadstead/v1/session.proto").read_text())
    ledger = Ledger(schema)
    folder = Path(tempfile.mkdtemp(prefix="roadstead-walk-"))
    world = World(options.server, options.repository, folder, options.engine, schema, ledger)
    checks, failed = asyncio.run(walk(world, options.only))
    if failed:
        print(f"the servers' logs are in {folder}")
    else:
        shutil.rmtree(folder)
    page = (options.repository / "docs/PROTOCOL.md").read_text()
    lacking = [] if options.only else missing(ledger, CHECKS, page)
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
