"""Section 5: who may open a session, and what Welcome says."""

import time

from client.ids import chat

from .checks import check


@check("P10", "Hello is answered with Welcome and what it must hold")
async def welcome(c):
    user = c.user()
    session = await c.login(user)
    it = session.welcome
    c.same("user", it.user, user)
    c.holds("a generation", it.generation > 0)
    c.holds("no resync", not it.resync)
    c.same("frame_bytes_max", it.limits.frame_bytes_max, 65536)
    c.same("sends_in_flight_max", it.limits.sends_in_flight_max, 128)
    c.same("payload_bytes_max", it.limits.payload_bytes_max, 65024)
    c.same("highest_number, unasked", it.highest_number, None)
    c.holds("server_time_ms is the time", abs(it.server_time_ms - time.time() * 1000) < 60_000)
    c.same("node_hints", it.node_hints, ["other.example:4433", "third.example:4433"])


@check("section 5", "Welcome says what the server understands")
async def capabilities(c):
    session = await c.login(c.user())
    known = c.world.schema.enums["ServerCapability"]
    c.holds("FINAL_CHAT_REFUSALS", session.welcome.capabilities & known["SERVER_CAPABILITY_FINAL_CHAT_REFUSALS"])
    c.same("bits that the schema has not", session.welcome.capabilities & ~sum(known.values()), 0)


@check("section 5", "capabilities that the server does not know are passed over")
async def unknown_capabilities(c):
    session = await c.login(c.user(), capabilities=1 << 60 | 1 << 40)
    c.same("highest_number, unasked", session.welcome.highest_number, None)


FIRST = {
    "send": {"number": 1, "chat": chat(1, 2), "payload": b"early"},
    "ack": {"cursor": bytes(16)},
    "read": {"chat": chat(1, 2), "position": bytes(16)},
    "typing": {"chat": chat(1, 2)},
    "ping": {"nonce": 1},
}


def first_frame(kind, fields):
    @check("P10", f"{kind} before Hello")
    async def run(c):
        session = await c.connect()
        session.say(kind, **fields)
        await c.ends(session, "FRAME_UNEXPECTED")


for kind, fields in FIRST.items():
    first_frame(kind, fields)


@check("P10", "a second Hello")
async def second_hello(c):
    server, user = await c.server(), c.user()
    session = await c.login(user)
    session.say("hello", **c.hello(server, user))
    await c.ends(session, "FRAME_UNEXPECTED")


@check("P13", "a frame between Hello and Welcome")
async def too_early(c):
    server, user = await c.server(), c.user()
    session = await c.connect(server)
    hello = session.bytes("hello", **c.hello(server, user))
    session.link.write(hello + session.bytes("typing", chat=chat(user, user)))
    await c.ends(session, "FRAME_UNEXPECTED")


async def turned_away(c, code, server=None, **fields):
    server = server or await c.server()
    session = await c.connect(server)
    session.say("hello", **c.hello(server, fields.pop("user", None) or c.user(), **fields))
    await c.ends(session, code)
    return session


@check("P10", "versions other than 1")
async def versions(c):
    for version in (0, 2, 1 << 31):
        await turned_away(c, "VERSION_UNSUPPORTED", version=version)


@check("P11", "device 0")
async def device_zero(c):
    await turned_away(c, "DEVICE_INVALID", device=0)


@check("P11", "a fifth device, and the four go on")
async def fifth_device(c):
    user = c.user()
    for device in (1, 2, 3, 0xFFFFFFFF):
        await c.leave(await c.login(user, device))
    await turned_away(c, "DEVICE_LIMIT", user=user, device=5)
    await c.login(user, 0xFFFFFFFF)


@check("P12", "the higher counter takes over")
async def takes_over(c):
    user = c.user()
    old = await c.login(user, connect_counter=7)
    new = await c.login(user, connect_counter=9)
    await c.ends(old, "SESSION_REPLACED")
    new.send(1, chat(user, user))
    await new.result(1)


@check("P12", "a lower counter that comes later does not")
async def does_not_take_over(c):
    user = c.user()
    new = await c.login(user, connect_counter=9)
    await turned_away(c, "SESSION_REPLACED", user=user, connect_counter=7)
    new.send(1, chat(user, user))
    await new.result(1)


@check("P12", "of sessions at once the one with the highest counter stays")
async def counters_at_once(c):
    server, user = await c.server(), c.user()
    sessions = [await c.connect(server) for _ in range(8)]
    for counter, session in enumerate(sessions, 1):
        session.say("hello", **c.hello(server, user, connect_counter=counter))
    await sessions[-1].want("welcome")
    for session in sessions[:-1]:
        await c.ends(session, "SESSION_REPLACED")
    sessions[-1].send(1, chat(user, user))
    await sessions[-1].result(1)


@check("P11", "of ten devices at once four are registered")
async def devices_at_once(c):
    server, user = await c.server(), c.user()
    sessions = [await c.connect(server) for _ in range(10)]
    for device, session in enumerate(sessions, 1):
        session.say("hello", **c.hello(server, user, device=device))
    kinds = [(await session.next())[0] for session in sessions]
    c.same("answers", sorted(kinds), ["error"] * 6 + ["welcome"] * 4)
    for session, kind in zip(sessions, kinds, strict=True):
        if kind == "error":
            await c.ends(session, "DEVICE_LIMIT")


@check("P12", "a counter of milliseconds is taken")
async def counter_of_time(c):
    await c.login(c.user(), connect_counter=1 << 62)


# How a signed token may be, and may not be: header and claims that replace those of a good one.
GOOD = {
    "aud in a list": {"aud": ["other", "roadstead"]},
    "times with fractions": {"exp": time.time() + 3600.5, "nbf": time.time() - 0.5},
    "exp passed within the tolerance": {"exp": time.time() + 600},
    "iat is there": {"iat": int(time.time())},
    "claims that nobody knows": {"role": {"of": ["no", "use"]}},
    "the largest user": {"sub": str(2**64 - 1)},
    "no kid": {"without": ("kid",)},
    "no typ": {"without": ("typ",)},
}
BAD = {
    "alg none": {"header": {"alg": "none"}},
    "alg HS256": {"header": {"alg": "HS256"}},
    "alg ES256": {"header": {"alg": "ES256"}},
    "a kid that no key has": {"header": {"kid": "nobody's"}},
    "crit": {"header": {"crit": ["exp"]}},
    "sub with leading zeros": {"sub": "007"},
    "sub with a sign": {"sub": "+7"},
    "sub below zero": {"sub": "-7"},
    "sub is user 0": {"sub": "0"},
    "sub is no number": {"sub": "seven"},
    "sub beyond 64 bits": {"sub": str(2**64)},
    "no sub": {"without": ("sub",)},
    "another iss": {"iss": "other"},
    "no iss": {"without": ("iss",)},
    "another aud": {"aud": "other"},
    "a list of other auds": {"aud": ["other"]},
    "no aud": {"without": ("aud",)},
    "no exp": {"without": ("exp",)},
    "nbf to come": {"nbf": time.time() + 3600},
    "no alg": {"without": ("alg",)},
}


def good_token(name, claims):
    @check("P14", f"a signed token: {name}")
    async def run(c):
        server = await c.server()
        given = dict(claims)
        if name.startswith("exp passed"):
            given["exp"] = time.time() - 1
        await c.login(user := c.user(), token=server.signer.token(user, **given))


def bad_token(name, claims):
    @check("P14", f"no signed token: {name}")
    async def run(c):
        server = await c.server()
        user = c.user()
        await turned_away(c, "TOKEN_INVALID", user=user, token=server.signer.token(user, **claims))


for name, claims in GOOD.items():
    good_token(name, claims)
for name, claims in BAD.items():
    bad_token(name, claims)


@check("P14", "exp passed")
async def expired(c):
    server = await c.server()
    await turned_away(c, "TOKEN_EXPIRED", token=server.signer.token(1, exp=time.time() - 60))


@check("P14", "a signature of another text, no token, an empty one, one of 4,097 bytes, none at all")
async def no_tokens(c):
    server = await c.server()
    head, claims, _ = server.signer.token(1).split(".")
    _, _, signature = server.signer.token(2).split(".")
    forged = f"{head}.{claims}.{signature}"
    for token in (forged, "not.a.token", "", "x" * 4096, "x" * 4097):
        await turned_away(c, "TOKEN_INVALID", token=token)
    session = await c.connect(server)
    fields = c.hello(server, 1)
    del fields["token"]
    session.say("hello", **fields)
    await c.ends(session, "TOKEN_INVALID")


@check("P14", "without kid the first four keys are tried, and with one each of them")
async def many_keys(c):
    server = await c.own_server("many-keys", keys=6)
    for at, signer in enumerate(server.signers):
        await c.leave(await c.login(user := c.user(), server=server, token=signer.token(user)))
        token = signer.token(user := c.user(), without=("kid",))
        if at < 4:
            await c.leave(await c.login(user, server=server, token=token))
        else:
            await turned_away(c, "TOKEN_INVALID", server=server, user=user, token=token)


@check("P14", "a resume token stands for its user on its device, and an earlier one stays good")
async def resume_token(c):
    user = c.user()
    first = await c.login(user)
    for _ in range(2):
        again = await c.login(user, resume_token=first.welcome.resume_token)
        c.same("user", again.welcome.user, user)
        await c.leave(again)


@check("P14, P6", "of two credentials in one Hello the last counts")
async def two_credentials(c):
    server, user = await c.server(), c.user()
    token = (await c.login(user)).welcome.resume_token
    session = await c.connect(server)
    fields = c.hello(server, user, token="not.a.token")
    session.say("hello", c.codec.encode("Hello", {"resume_token": token}), **fields)
    await session.want("welcome")


@check("P14", "a resume token is no other device's, may not be changed, and is not a signed one")
async def bad_resume_tokens(c):
    good = (await c.login(user := c.user())).welcome.resume_token
    for at in (0, len(good) // 2, len(good) - 1):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        await turned_away(c, "TOKEN_INVALID", user=user, resume_token=changed)
    for token in (good[:-1], good + b"\0", b"", bytes(4097)):
        await turned_away(c, "TOKEN_INVALID", user=user, resume_token=token)
    await turned_away(c, "TOKEN_INVALID", user=user, device=2, resume_token=good)


@check("P14", "a resume token expires, and a signed one still opens")
async def resume_token_expires(c):
    server, user = await c.server("impatient"), c.user()
    token = (await c.login(user, server=server)).welcome.resume_token
    while True:
        session = await c.connect(server)
        session.say("hello", **c.hello(server, user, resume_token=token))
        kind, answer = await session.next()
        if kind == "error":
            c.same("code", c.name(answer.code), "TOKEN_EXPIRED")
            await c.ends(session, "TOKEN_EXPIRED")
            break
        await c.leave(session)
        await c.pause(200)
    await c.login(user, server=server)


@check("P17", "a cursor of another generation acknowledges nothing: resync")
async def resync(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user), b"kept")
    await two.want("deliver")
    again = await c.login(two.user, cursor=b"\0\0\0\x63" + b"\xff" * 12)
    c.holds("resync", again.welcome.resync)
    c.same("payload", (await again.want("deliver")).envelope.payload, b"kept")


@check("P18", "the highest number is told to a device that asks")
async def highest_number(c):
    user = c.user()
    for number, sent in ((0, 5), (5, 9)):
        session = await c.login(user, capabilities=1)
        c.same("highest_number", session.welcome.highest_number, number)
        session.send(sent, chat(user, user))
        await session.result(sent)
        await c.leave(session)


@check("section 5", "a Hello's cursor beyond the inbox, and one of 15 bytes")
async def bad_cursors(c):
    generation = (await c.login(c.user())).welcome.generation
    await turned_away(c, "CURSOR_INVALID", cursor=generation.to_bytes(4, "big") + b"\xff" * 12)
    await turned_away(c, "CURSOR_INVALID", cursor=bytes(15))


@check("section 5", "a session without a Hello is closed after 10 s, and one with half a Hello")
async def hello_timeout(c):
    silent, slow = await c.connect(), await c.connect()
    slow.link.write(b"\x80\x01\x0a")
    await c.ends(silent, "HELLO_TIMEOUT")
    await c.ends(slow, "HELLO_TIMEOUT")
