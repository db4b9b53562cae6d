"""Checks by name, and what each has at hand."""

import asyncio
from dataclasses import dataclass, field
from itertools import count

from client import link
from client.session import Session
from client.wire import Codec

from .server import CONFIGURATIONS, Server

CHECKS = []
# No check waits this long if all is well: a bound for one that hangs, not a measurement.
SECONDS_MAX = 120
# Of what one check breaks, so many are told.
FAULTS_TOLD = 3


@dataclass(frozen=True)
class Check:
    rules: str
    name: str
    run: object


def check(rules, name):
    """Registers a check of the rules that it names."""
    def register(run):
        CHECKS.append(Check(rules, name, run))
        return run

    return register


@dataclass
class World:
    """What all checks share."""

    binary: str
    repository: object
    folder: object
    engine: str
    schema: object
    ledger: object
    servers: dict = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # The vectors are of user 1 and its device: one check at a time is that device.
    vector: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: object = field(default_factory=lambda: count(1001))
    folders: object = field(default_factory=count)

    def vectors(self, name):
        """The lines `name hex` of proto/tests/vectors."""
        text = (self.repository / "proto/tests/vectors" / name).read_text()
        lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
        return [(name, bytes.fromhex(code)) for name, code in lines]

    async def server(self, name):
        async with self.lock:
            if name not in self.servers:
                self.servers[name] = await self.own_server(name)
            return self.servers[name]

    async def own_server(self, name, keys=0):
        """A server that one check may drain, and start again; with so many keys for tokens instead of its own."""
        folder = self.folder / f"{next(self.folders)}-{name}"
        server = Server(self.binary, folder, CONFIGURATIONS[name], self.engine, keys)
        await server.start()
        return server


class Stage:
    """What one check has: servers, users that nobody else has, and sessions that are held to the rules for all."""

    def __init__(self, world):
        self.world = world
        self.ledger = world.ledger
        self.codec = Codec(world.schema, world.ledger.field)
        self.codes = world.schema.enums["ErrorCode"]
        self.sessions = []
        self.own = []
        self.counters = count(1)

    def user(self):
        return next(self.world.users)

    async def server(self, name="plain"):
        return await self.world.server(name)

    async def own_server(self, name="plain", keys=0):
        self.own.append(await self.world.own_server(name, keys))
        return self.own[-1]

    def plain_codec(self):
        """One whose fields count for nothing."""
        return Codec(self.world.schema)

    async def connect(self, server=None, **options):
        """A session before its Hello."""
        server = server or await self.server()
        dial = {name: options.pop(name) for name in ("prefix", "tickets", "early") if name in options}
        configured = link.configuration(server.certificate, **options)
        session = Session(await link.dial(server.address, configured, **dial), self.codec, self.ledger)
        self.sessions.append(session)
        return session

    def hello(self, server, user, device=1, **fields):
        """The fields of a good Hello; those given replace them."""
        it = {"version": 1, "device": device, "connect_counter": next(self.counters)}
        if "resume_token" not in fields:
            it["token"] = server.signer.token(user)
        return it | fields

    async def login(self, user, device=1, server=None, prefix=None, **fields):
        server = server or await self.server()
        session = await self.connect(server, prefix=prefix)
        session.say("hello", **self.hello(server, user, device, **fields))
        await session.want("welcome")
        return session

    async def leave(self, session):
        """Ends a session, and waits until its user's next one would find all of it done (P50)."""
        session.link.write(b"", end=True)
        await session.ended()

    async def pair(self, server=None):
        """Two users' sessions, and their chat."""
        one, two = self.user(), self.user()
        first = await self.login(one, server=server)
        second = await self.login(two, server=server)
        first.user, second.user = one, two
        return first, second

    def same(self, what, is_, wanted):
        if is_ != wanted:
            raise AssertionError(f"{what}: {is_!r} instead of {wanted!r}")

    def holds(self, what, truth):
        if not truth:
            raise AssertionError(what)

    async def pause(self, ms):
        """As long as an error said (P40)."""
        await asyncio.sleep(ms / 1000)

    async def ends(self, session, code):
        """The server closes it with a code, by name, and says so in an Error if that came."""
        wanted = self.codes[f"ERROR_CODE_{code}"]
        self.same("close code", self.name(await session.ended()), self.name(wanted))
        for error in session.pending("error"):
            if not error.number:
                self.same("the code of the Error frame", self.name(error.code), code)

    async def refused(self, session, number, code, retryable):
        """A send is refused with a code, by name; the refusal."""
        error = await session.refusal(number)
        self.same(f"the code for number {number}", self.name(error.code), code)
        self.same(f"retryable for number {number}", error.retryable, retryable)
        return error

    def name(self, code):
        names = {value: name.removeprefix("ERROR_CODE_") for name, value in self.codes.items()}
        return names.get(code, code)

    async def close(self):
        """Ends what is left; what broke a rule that holds for all."""
        faults = [fault for session in self.sessions for fault in session.faults][:FAULTS_TOLD]
        unknown = sorted(set(self.codec.unknown))
        for session in self.sessions:
            session.link.leave()
            session.link.hang_up()
        for server in self.own:
            await server.stop()
        if unknown:
            faults.append(f"the server sent fields that the schema has not: {unknown}")
        return faults


async def play(world, it):
    """Runs one check: None, or what it found."""
    stage = Stage(world)
    found = []
    try:
        await asyncio.wait_for(it.run(stage), SECONDS_MAX)
    except Exception as error:  # Whatever it is, it is the finding.
        found.append(f"{type(error).__name__}: {error}")
    finally:
        found += await stage.close()
    return "; ".join(found) or None
