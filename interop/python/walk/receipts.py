"""Section 9: receipts, read marks, typing, Ping."""

from client.ids import chat

from .checks import check


@check("P29, P30", "three ticks: committed, delivered, read")
async def three_ticks(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.send(1, both)
    position = (await one.result(1)).position
    two.ack((await two.want("deliver")).cursor)
    it = await one.want("receipt_update")
    c.same("double tick", (it.user, it.chat, it.delivered, it.read), (two.user, both, position, b""))
    two.say("read", chat=both, position=position)
    it = await one.want("receipt_update")
    c.same("blue", (it.user, it.chat, it.read), (two.user, both, position))


@check("P20", "a receipt is an entry: it comes again until it is acknowledged")
async def receipt_is_an_entry(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user))
    await one.result(1)
    two.ack((await two.want("deliver")).cursor)
    first = await one.want("receipt_update")
    again = await c.login(one.user)
    c.same("the receipt", dict(await again.want("receipt_update")), dict(first))
    again.ack()
    await c.leave(again)
    last = await c.login(one.user)
    two.send(1, chat(one.user, two.user), b"behind it")
    kind, _ = await last.next()
    c.same("the first entry", kind, "deliver")


@check("P31, P32", "a mark that is said before its Ack, and one in the same write, are set")
async def before_the_ack(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    for number in (1, 2):
        one.send(number, both)
        position = (await one.result(number)).position
        cursor = (await two.want("deliver")).cursor
        two.link.write(two.bytes("read", chat=both, position=position) + two.bytes("ack", cursor=cursor))
        await one.want("receipt_update", where=lambda it, p=position: it.read == p)
        one.ack()


@check("P30", "the reader's other device hears what was read")
async def other_device(c):
    one, two = await c.pair()
    tablet = await c.login(two.user, device=2)
    both = chat(one.user, two.user)
    one.send(1, both)
    position = (await one.result(1)).position
    two.ack((await two.want("deliver")).cursor)
    two.say("read", chat=both, position=position)
    it = await tablet.want("receipt_update")
    c.same("the own user's mark", (it.user, it.chat, it.read), (two.user, both, position))


@check("P31", "a mark beyond what was given is cut down to it")
async def beyond(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.send(1, both)
    position = (await one.result(1)).position
    two.ack((await two.want("deliver")).cursor)
    await one.want("receipt_update")
    two.say("read", chat=both, position=position[:4] + b"\xff" * 12)
    it = await one.want("receipt_update", where=lambda it: it.read)
    c.holds("no further than delivered", it.read <= position)


@check("P32", "a mark that does not advance has no effect, and receipts make no receipts")
async def no_effect(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    positions = []
    for number in (1, 2):
        one.send(number, both)
        positions.append((await one.result(number)).position)
        two.ack((await two.want("deliver")).cursor)
    two.say("read", chat=both, position=positions[1])
    await one.want("receipt_update", where=lambda it: it.read == positions[1])
    one.ack()
    two.say("read", chat=both, position=positions[0])
    two.say("read", chat=both, position=positions[1])
    two.send(1, both, b"behind the marks")
    await one.want("deliver")
    c.same("receipts", [it for it in one.pending("receipt_update") if it.read], [])
    c.same("receipts of the receiver", two.pending("receipt_update"), [])


@check("P31", "a position that is not 16 bytes")
async def bad_position(c):
    for position in (b"", bytes(15), bytes(17)):
        session = await c.login(user := c.user())
        session.say("read", chat=chat(user, user), position=position)
        await c.ends(session, "POSITION_INVALID")


@check("section 10", "a Read or Typing of a chat that is not the user's")
async def bad_chat(c):
    for kind, fields in (("read", {"position": bytes(16)}), ("typing", {})):
        for where in (chat(1, 2), b"short", b""):
            session = await c.login(c.user())
            session.say(kind, chat=where, **fields)
            await c.ends(session, "CHAT_INVALID")


@check("P31", "a Read of a chat in which nothing was said has no effect")
async def empty_chat(c):
    one, two = await c.pair()
    for other in (two.user, c.user()):
        two.say("read", chat=chat(two.user, other), position=bytes(16))
        two.say("read", chat=chat(one.user, two.user), position=two.welcome.generation.to_bytes(4, "big") + bytes(12))
    two.send(1, chat(one.user, two.user), b"behind the marks")
    kind, _ = await one.next()
    c.same("the first entry", kind, "deliver")


@check("P51", "typing passes with its user, and is not stored")
async def typing(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.say("typing", chat=both, user=two.user)
    it = await two.want("typing")
    c.same("typing", (it.chat, it.user), (both, one.user))
    await c.leave(two)
    one.say("typing", chat=both)
    one.send(1, both)
    await one.result(1)
    back = await c.login(two.user)
    kind, _ = await back.next()
    c.same("the first frame", kind, "deliver")


@check("P51", "of many typings four pass")
async def much_typing(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    # In one datagram, so that all are of one moment.
    one.link.write(b"".join(one.bytes("typing", chat=both) for _ in range(40)))
    await two.want("typing")
    one.send(1, both)
    await two.want("deliver")
    seen = 1 + len(two.pending("typing"))
    c.holds(f"4 of 40 at most, not {seen}", seen <= 4)


@check("P52", "a Ping is answered over QUIC too")
async def ping(c):
    session = await c.login(c.user())
    for nonce in (1, (1 << 64) - 1):
        session.say("ping", nonce=nonce)
        c.same("nonce", (await session.want("pong")).nonce, nonce)
