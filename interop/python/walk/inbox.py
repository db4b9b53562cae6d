"""Section 7: the inbox, its cursors, acknowledgements and gaps."""

from client.ids import chat

from .checks import check

WINDOW = 256


async def write(session, other, numbers, payload=b"text"):
    """Sends to another's chat, one after the other."""
    for number in numbers:
        session.send(number, chat(session.user, other), payload)
        await session.result(number)


@check("P19, P26", "what is not acknowledged comes again, what is does not")
async def again_until_acknowledged(c):
    one, two = await c.pair()
    await write(one, two.user, range(1, 7))
    entries = [await two.want("deliver") for _ in range(6)]
    two.ack(entries[2].cursor)
    await c.leave(two)
    again = await c.login(two.user)
    for entry in entries[3:]:
        c.same("the entry", dict(await again.want("deliver")), dict(entry))
    again.ack()
    await c.leave(again)
    last = await c.login(two.user)
    await write(one, two.user, [7])
    c.same("number", (await last.want("deliver")).envelope.number, 7)


@check("P19", "a Hello's cursor acknowledges, and the sender hears of it")
async def hello_acknowledges(c):
    one, two = await c.pair()
    await write(one, two.user, [1, 2])
    cursor = [await two.want("deliver") for _ in range(2)][1].cursor
    await c.leave(two)
    again = await c.login(two.user, cursor=cursor)
    c.holds("no resync", not again.welcome.resync)
    await one.want("receipt_update", where=lambda it: it.delivered == cursor)
    await write(one, two.user, [3])
    c.same("number", (await again.want("deliver")).envelope.number, 3)


@check("P27", "an Ack beyond what was delivered in this session")
async def ack_beyond(c):
    one, two = await c.pair()
    await write(one, two.user, [1])
    cursor = (await two.want("deliver")).cursor
    two.ack(cursor[:-1] + bytes([cursor[-1] + 1]))
    await c.ends(two, "CURSOR_INVALID")


@check("P27", "an Ack of what only another device was given")
async def ack_of_another(c):
    one, two = await c.pair()
    await write(one, two.user, [1])
    cursor = (await two.want("deliver")).cursor
    two.ack(cursor)
    await c.leave(two)
    await write(one, two.user, [2])
    other = await c.login(two.user, device=2)
    other.ack(cursor)
    await c.ends(other, "CURSOR_INVALID")


@check("P27", "an Ack that is not above the last one, or of another generation, has no effect")
async def ack_without_effect(c):
    one, two = await c.pair()
    await write(one, two.user, [1, 2])
    entries = [await two.want("deliver") for _ in range(2)]
    two.ack(entries[1].cursor)
    two.ack(entries[0].cursor)
    two.ack(entries[1].cursor)
    two.ack(b"\0\0\0\x63" + b"\xff" * 12)
    await write(one, two.user, [3])
    c.same("number", (await two.want("deliver")).envelope.number, 3)


@check("P22", "a message that comes again has the same id, position and number")
async def known_again(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user), b"once")
    result = await one.result(1)
    first = await two.want("deliver")
    c.same("message id", first.envelope.message_id, result.message_id)
    c.same("position", first.chat_position or first.cursor, result.position)
    again = await c.login(two.user)
    c.same("the entry", dict(await again.want("deliver")), dict(first))


@check("P21", "all devices of both users get one order, and the sender's siblings what it sent")
async def one_order(c):
    one, two = await c.pair()
    tablet = await c.login(one.user, device=2)
    positions = []
    for number in range(1, 11):
        for session, other in ((one, two), (two, one)):
            session.send(number, chat(session.user, other.user), b"%d" % session.user)
            positions.append((await session.result(number)).position)
    c.same("positions in order", sorted(positions), positions)
    seen = [await tablet.want("deliver") for _ in positions]
    c.same("the sibling's positions", [it.chat_position or it.cursor for it in seen], positions)
    mine = [it.envelope for it in seen if it.envelope.sender == one.user]
    c.same("the sibling's numbers", [(it.sender_device, it.number) for it in mine], [(1, n) for n in range(1, 11)])
    c.same("what the sender got", [(await one.want("deliver")).cursor for _ in range(10)], positions[1::2])


@check("P21", "of sends at once all devices see one order")
async def one_order_of_many(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    four = [one, two, await c.login(one.user, device=2), await c.login(two.user, device=2)]
    numbers = range(1, 41)
    for number in numbers:
        for session in four:
            session.send(number, both, b"")
    views = []
    for session in four:
        view = [(await session.result(number)).position for number in numbers]
        view += [(await session.want("deliver")).cursor for _ in range(3 * len(numbers))]
        views.append(sorted(view))
    for view in views:
        c.same("positions", len(set(view)), 4 * len(numbers))
        c.holds("every device has the same", view == views[0])


@check("P23", "delivery pauses at 256 entries, and goes on with acknowledgements")
async def window(c):
    one, two = await c.pair()
    many = WINDOW + 20
    for first in range(1, many, 100):
        numbers = range(first, min(first + 100, many + 1))
        for number in numbers:
            one.send(number, chat(one.user, two.user), b"")
        for number in numbers:
            await one.result(number)
    entries = [await two.want("deliver") for _ in range(WINDOW)]
    # Typing is not held by the window: it comes, and no entry before it.
    one.say("typing", chat=chat(one.user, two.user))
    await two.want("typing")
    c.same("entries beyond the window", two.pending("deliver"), [])
    two.ack(entries[99].cursor)
    rest = [await two.want("deliver") for _ in range(20)]
    c.same("numbers", [it.envelope.number for it in entries + rest], list(range(1, many + 1)))


@check("P23", "delivery pauses at some 128 KiB")
async def window_of_bytes(c):
    one, two = await c.pair()
    for number in range(1, 9):
        one.send(number, chat(one.user, two.user), bytes(60_000))
        await one.result(number)
    seen = [await two.want("deliver"), await two.want("deliver")]
    one.say("typing", chat=chat(one.user, two.user))
    await two.want("typing")
    c.holds("at most 4 of 8 entries of 60,000 bytes", len(seen) + len(two.pending("deliver")) <= 4)
    while len(seen) < 8:
        two.ack()
        seen.append(await two.want("deliver"))
    c.same("numbers", [it.envelope.number for it in seen], list(range(1, 9)))


@check("P24", "a client that acknowledges nothing while entries wait is closed, and loses nothing")
async def slow_consumer(c):
    server = await c.server("impatient")
    one, two = await c.pair(server)
    late = await c.login(c.user(), server=server)
    one.send(1, chat(one.user, late.welcome.user))
    await one.result(1)
    await late.want("deliver")
    for number in range(2, WINDOW + 12):
        one.send(number, chat(one.user, two.user), b"")
        await one.result(number)
    await c.ends(two, "SLOW_CONSUMER")
    # Nothing waits behind what the third has not acknowledged, for longer than that.
    await late.link.ping()
    late.ack()
    again = await c.login(two.user, server=server)
    c.same("number", (await again.want("deliver")).envelope.number, 2)


async def fill(c, session, other, number=1):
    """Sends until that is refused for want of room: the number refused, and its error."""
    while number < 200:
        session.send(number, chat(session.user, other), b"filling")
        answer = await session.answer(number)
        if answer.message.name == "Error":
            c.same("code", c.name(answer.code), "RECIPIENT_FULL")
            return number, answer
        number += 1
    raise AssertionError("the limit is never reached")


@check("R21, P38", "RECIPIENT_FULL is final for its number, and holds up no other chat")
async def recipient_full(c):
    server = await c.server("small")
    one, two = await c.pair(server)
    third = await c.login(c.user(), server=server)
    await c.leave(third)
    away = c.user()
    await c.leave(await c.login(away, server=server))
    number, error = await fill(c, one, away)
    c.holds("a sender has a tenth of 40, softly", 4 <= number - 1 < 40)
    c.same("retryable", error.retryable, False)
    c.holds("retry_after_ms", error.retry_after_ms > 0)
    one.send(number + 1, chat(one.user, two.user), b"to another")
    await one.result(number + 1)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"to another")
    # The same number with the same content has the same answer, the refused as the committed (P38).
    one.send(number, chat(one.user, away), b"filling")
    await c.refused(one, number, "RECIPIENT_FULL", False)
    one.send(1, chat(one.user, away), b"filling")
    await one.result(1)


async def suspend(c, server):
    """A user whose only device has passed its limit: its id, who wrote to it, and how often."""
    away = c.user()
    await c.leave(await c.login(away, server=server))
    accepted, writers = 0, []
    for _ in range(100):
        writer = await c.login(c.user(), server=server)
        writer.user = writer.welcome.user
        number, _ = await fill(c, writer, away)
        accepted += number - 1
        writers.append((writer, number))
        if number == 1:
            return away, accepted, writers
    raise AssertionError("the limit is never reached")


@check("P33", "a suspended device gets its entries, then a Gap, and is written to again after its Ack")
async def gap(c):
    server = await c.server("small")
    away, accepted, writers = await suspend(c, server)
    back = await c.login(away, server=server)
    for _ in range(accepted):
        kind, _ = await back.next()
        c.same("the entry", kind, "deliver")
    kind, it = await back.next()
    reasons = c.world.schema.enums["GapReason"]
    c.same("the last entry", (kind, it.reason), ("gap", reasons["GAP_REASON_INBOX_LIMIT"]))
    back.ack(it.cursor)
    writer, number = writers[0]
    while True:
        number += 1
        writer.send(number, chat(writer.user, away), b"there is room", after=number - 1)
        answer = await writer.answer(number)
        if answer.message.name == "SendResult":
            break
        c.same("code", c.name(answer.code), "RECIPIENT_FULL")
    c.same("payload", (await back.want("deliver")).envelope.payload, b"there is room")


@check("P33", "one sender's part of an inbox is full, another device's is not: a Gap of reason 4")
async def gap_of_one_sender(c):
    server = await c.server("small")
    one = await c.login(c.user(), server=server)
    one.user = one.welcome.user
    two = c.user()
    await c.leave(await c.login(two, device=1, server=server))
    reader = await c.login(two, device=2, server=server)
    # In threes: what is acknowledged counts until the sender hears of it.
    for first in range(1, 31, 3):
        for number in range(first, first + 3):
            one.send(number, chat(one.user, two))
            last = (await one.result(number)).position
            await reader.want("deliver")
        reader.ack()
        await one.want("receipt_update", where=lambda it, p=last: it.delivered >= p)
        one.ack()
    back = await c.login(two, device=1, server=server)
    delivered = 0
    while True:
        kind, it = await back.next()
        if kind == "gap":
            break
        delivered += kind == "deliver"
    c.same("reason", it.reason, c.world.schema.enums["GapReason"]["GAP_REASON_SENDER_LIMIT"])
    c.holds("a tenth of 40, softly", 4 <= delivered < 30)


@check("P112", "behind a refusal its chat's numbers are refused, until one says that the client knows")
async def order_of_a_chat(c):
    server = await c.server("small")
    away, _, writers = await suspend(c, server)
    writer, refused = writers[-1]
    both = chat(writer.user, away)
    # In one write: nobody can have read the refusal of the first.
    numbers = range(refused + 1, refused + 6)
    writer.link.write(b"".join(writer.bytes("send", number=n, chat=both, payload=b"line") for n in numbers))
    for number in numbers:
        await c.refused(writer, number, "RECIPIENT_FULL", False)
    back = await c.login(away, server=server)
    cursor = (await back.want("gap")).cursor
    back.ack(cursor)
    # Room is certain once another's message has been taken.
    other, last = writers[0]
    number, after = last + 1, last
    while True:
        other.send(number, chat(other.user, away), after=after)
        if (await other.answer(number)).message.name == "SendResult":
            break
        number, after = number + 1, number
    unaware = numbers[-1] + 1
    writer.send(unaware, both, b"unaware")
    await c.refused(writer, unaware, "RECIPIENT_FULL", False)
    writer.send(unaware + 1, both, b"aware", after=unaware)
    await writer.result(unaware + 1)
    await back.want("deliver", where=lambda it: it.envelope.payload == b"aware")
    c.same("lines that overtook", [it for it in back.pending("deliver") if it.envelope.sender == writer.user], [])
