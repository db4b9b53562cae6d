"""Section 10: leaving, draining, coming back, and too many sessions."""

import asyncio

from client.ids import chat
from client.link import Closed

from .checks import check

# How long a handshake goes unanswered before it counts as refused.
SILENCE_S = 2


@check("P50", "a client acknowledges, ends its stream, and is closed with 0; nothing comes again")
async def leaves(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user))
    await one.result(1)
    await two.want("deliver")
    two.ack()
    await c.leave(two)
    await one.want("receipt_update")
    back = await c.login(two.user)
    one.send(2, chat(one.user, two.user))
    c.same("number", (await back.want("deliver")).envelope.number, 2)


@check("P50", "a client's own close with 0 harms nobody")
async def closes(c):
    one, two = await c.pair()
    two.link.leave(0)
    one.send(1, chat(one.user, two.user))
    await one.result(1)


@check("P42", "an Error without number comes before the close, with its code")
async def error_and_close(c):
    heard = 0
    for _ in range(20):
        session = await c.login(c.user())
        session.say("ack", cursor=b"short")
        await c.ends(session, "CURSOR_INVALID")
        heard += len(session.pending("error"))
        if heard:
            return
    raise AssertionError("20 sessions were closed without an Error frame")


@check("P48, P38", "a drained server says GoAway, closes with DRAINING, and knows all when it is back")
async def drained(c):
    server = await c.own_server()
    one, two = await c.pair(server)
    both = chat(one.user, two.user)
    one.send(1, both, b"before")
    first = await one.result(1)
    server.drain()
    it = await one.want("go_away")
    c.holds("reconnect_after_ms", it.reconnect_after_ms > 0)
    c.holds("a reason", it.reason)
    await c.ends(one, "DRAINING")
    await two.ended()
    c.same("the server's exit", await server.gone(), 0)
    await server.start()
    again = await c.login(one.user, server=server, resume_token=one.welcome.resume_token)
    c.same("generation", again.welcome.generation, one.welcome.generation)
    again.send(1, both, b"before")
    c.same("the answer", dict(await again.result(1)), dict(first))
    back = await c.login(two.user, server=server)
    c.same("payload", (await back.want("deliver")).envelope.payload, b"before")


@check("P38", "a killed server has lost nothing that it answered")
async def killed(c):
    server = await c.own_server()
    one, two = await c.pair(server)
    both = chat(one.user, two.user)
    results = []
    for number in range(1, 21):
        one.send(number, both, b"%d" % number)
        results.append(dict(await one.result(number)))
    await server.stop()
    await server.start()
    back = await c.login(two.user, server=server)
    for number in range(1, 21):
        c.same("payload", (await back.want("deliver")).envelope.payload, b"%d" % number)
    again = await c.login(one.user, server=server)
    for number in range(1, 21):
        again.send(number, both, b"%d" % number)
        c.same("the answer", dict(await again.result(number)), results[number - 1])


@check("P54", "an address that opens too many sessions waits, and those that are open stay")
async def crowded(c):
    server = await c.server("crowded")
    one, two = await c.login(c.user(), server=server), await c.login(c.user(), server=server)
    refused = await asyncio.gather(*(late(c, server) for _ in range(16)))
    c.holds("some of 16 at once are refused", any(refused))
    for session in (one, two):
        user = session.welcome.user
        session.send(1, chat(user, user))
        await session.result(1)


async def late(c, server):
    """Whether one more session is refused: with its code, or by silence."""
    try:
        session = await asyncio.wait_for(c.connect(server), SILENCE_S)
        session.say("hello", **c.hello(server, c.user()))
        kind, answer = await session.next()
        return kind == "error" and c.name(answer.code) == "RATE_LIMITED"
    except TimeoutError:
        return True
    except Closed as end:
        return c.name(end.code) == "RATE_LIMITED"


@check("P49", "a restarted server answers an old connection with a stateless reset")
async def stateless_reset(c):
    server = await c.own_server()
    session = await c.login(c.user(), server=server)
    await session.link.ping()
    await server.stop()
    await server.start()
    # Asked again and again, because a packet may come before the server reads its socket.
    asking = asyncio.create_task(keep_asking(session.link))
    await session.link.until(lambda: session.link.resets)
    asking.cancel()
    await c.login(session.welcome.user, server=server)


async def keep_asking(link):
    while True:
        link._quic.send_ping(0)
        link.transmit()
        await asyncio.sleep(0.1)
