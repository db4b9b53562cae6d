"""Section 8: numbers, retries, refusals."""

from client.ids import chat

from .checks import check

NUMBERS_KEPT = 256


@check("R12", "a message gets its tick, and the Deliver says what the Send said")
async def one_message(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user), b"hello")
    result = await one.result(1)
    it = (await two.want("deliver")).envelope
    c.same("sender", (it.sender, it.sender_device, it.number), (one.user, 1, 1))
    c.same("chat", it.chat, chat(one.user, two.user))
    c.same("payload", it.payload, b"hello")
    c.same("message", (it.message_id, it.server_time_ms), (result.message_id, result.server_time_ms))


@check("R12", "a message waits for a device that is away")
async def offline(c):
    one, two = await c.pair()
    await c.leave(two)
    for number in (1, 2, 3):
        one.send(number, chat(one.user, two.user), b"%d" % number)
        await one.result(number)
    back = await c.login(two.user)
    for number in (1, 2, 3):
        c.same("payload", (await back.want("deliver")).envelope.payload, b"%d" % number)


@check("section 4", "a user chats with itself: its other devices get it")
async def own_chat(c):
    user = c.user()
    phone, tablet = await c.login(user), await c.login(user, device=2)
    phone.send(1, chat(user, user), b"note")
    await phone.result(1)
    c.same("payload", (await tablet.want("deliver")).envelope.payload, b"note")


@check("P38", "the same number has the same answer, in the next session too, and makes one message")
async def same_number(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.send(5, both, b"once")
    first = await one.result(5)
    one.send(5, both, b"once")
    c.same("the answer", dict(await one.result(5)), dict(first))
    again = await c.login(one.user)
    again.send(5, both, b"once")
    c.same("the answer", dict(await again.result(5)), dict(first))
    again.send(6, both, b"next")
    await again.result(6)
    payloads = [(await two.want("deliver")).envelope.payload for _ in range(2)]
    c.same("payloads", payloads, [b"once", b"next"])


@check("P34", "another message under a used number, and number 0")
async def bad_numbers(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.send(5, both, b"once")
    await one.result(5)
    for chat_, payload in ((both, b"another"), (chat(one.user, one.user), b"once")):
        one.send(5, chat_, payload)
        await c.refused(one, 5, "NUMBER_REUSED", False)
    one.send(6, both)
    await one.result(6)
    one.send(0, both)
    await c.ends(one, "NUMBER_INVALID")


@check("P34, P38", "another deadline, and another knowledge of refusals, is the same message")
async def same_message(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.send(5, both)
    first = await one.result(5)
    for fields in ({"deadline_ms": 1_000}, {"after": 4}):
        one.send(5, both, **fields)
        c.same("the answer", dict(await one.result(5)), dict(first))


@check("P34, P37, P38", "a number used again in the same write")
async def again_at_once(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    sends = [(5, b"a"), (5, b"a"), (5, b"other"), (5, b"a"), (5 + NUMBERS_KEPT, b"b"), (5, b"a")]
    one.link.write(b"".join(one.bytes("send", number=n, chat=both, payload=payload) for n, payload in sends))
    answers = [await one.answer(number) for number, _ in sends]
    codes = [c.name(it.code) if it.message.name == "Error" else None for it in answers]
    c.same("answers", codes, [None, None, "NUMBER_REUSED", None, None, "NUMBER_SPENT"])
    c.same("the answers of one message", [dict(answers[n]) for n in (1, 3)], [dict(answers[0])] * 2)
    one.send(600, both, b"c")
    await one.result(600)
    c.same("payloads", [(await two.want("deliver")).envelope.payload for _ in range(3)], [b"a", b"b", b"c"])


@check("P36", "numbers may be skipped")
async def skipped(c):
    one, two = await c.pair()
    for number in (3, 77, 1 << 40, (1 << 64) - 1):
        one.send(number, chat(one.user, two.user))
        await one.result(number)
        c.same("number", (await two.want("deliver")).envelope.number, number)


@check("P37", "a number whose slot a later one has taken")
async def spent(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    for number in (1, 1 + NUMBERS_KEPT):
        one.send(number, both)
        await one.result(number)
    one.send(1, both)
    await c.refused(one, 1, "NUMBER_SPENT", False)


@check("P37, P39", "too many unanswered sends are refused, and sent again from the lowest they all arrive in order")
async def in_flight(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    limit = c.codes["ERROR_CODE_IN_FLIGHT_LIMIT"]
    sent = 0
    for _ in range(50):
        todo = range(sent + 1, sent + 401)
        sent += 400
        refused = await burst(c, one, both, todo)
        codes = set(refused.values())
        await retry(c, one, both, todo, refused)
        if limit in codes:
            break
    c.holds("IN_FLIGHT_LIMIT was never met", limit in codes)
    for number in range(1, sent + 1):
        c.same("number", (await two.want("deliver")).envelope.number, number)
        two.ack()


async def burst(c, session, both, numbers, **fields):
    """Sends all at once: the codes of those that were refused."""
    fields = {"chat": both, "payload": b"burst"} | fields
    session.link.write(b"".join(session.bytes("send", number=number, **fields) for number in numbers))
    refused = {}
    for number in numbers:
        answer = await session.answer(number)
        if answer.message.name == "Error":
            c.same(f"retryable for number {number}", answer.retryable, True)
            refused[number] = answer.code
    return refused


async def retry(c, session, both, numbers, refused, **fields):
    """From the lowest refused number, and all from there on, in order (P39)."""
    while refused:
        rest = range(min(refused), numbers[-1] + 1)[:64]
        later = {number: code for number, code in refused.items() if number > rest[-1]}
        refused = await burst(c, session, both, rest, **fields) | later


@check("P37", "1 MiB of unanswered payloads, and no more")
async def in_flight_bytes(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    payload = bytes(60_000)
    numbers = range(1, 41)
    one.link.write(b"".join(one.bytes("send", number=n, chat=both, payload=payload) for n in numbers))
    waiting = []
    for number in numbers:
        answer = await one.answer(number)
        if answer.message.name == "Error":
            c.holds(f"retryable: {c.name(answer.code)}", answer.retryable)
            waiting.append(number)
    while waiting:
        number = waiting[0]
        one.send(number, both, payload)
        if (await one.answer(number)).message.name == "SendResult":
            waiting.pop(0)
    for number in numbers:
        c.same("number", (await two.want("deliver")).envelope.number, number)
        two.ack()


@check("section 10", "sends that can not be are refused, and the session goes on")
async def impossible(c):
    one, two = await c.pair()
    stranger = c.user()
    wrong = (
        (chat(one.user, stranger), "USER_UNKNOWN"),
        (chat(two.user, stranger), "CHAT_INVALID"),
        (b"short", "CHAT_INVALID"),
        (b"", "CHAT_INVALID"),
        (bytes(8) + one.user.to_bytes(8, "big"), "CHAT_INVALID"),
        (chat(one.user, two.user)[8:] + chat(one.user, two.user)[:8], "CHAT_INVALID"),
    )
    for number, (where, code) in enumerate(wrong, 1):
        one.send(number, where)
        await c.refused(one, number, code, False)
    one.send(9, chat(one.user, two.user))
    await one.result(9)


@check("P38", "USER_UNKNOWN stays the answer of its number")
async def unknown_stays(c):
    server, user, other = await c.server(), c.user(), c.user()
    one = await c.login(user)
    one.send(1, chat(user, other))
    await c.refused(one, 1, "USER_UNKNOWN", False)
    late = await c.login(other, server=server)
    one.send(1, chat(user, other))
    await c.refused(one, 1, "USER_UNKNOWN", False)
    one.send(2, chat(user, other), b"known now")
    await one.result(2)
    c.same("payload", (await late.want("deliver")).envelope.payload, b"known now")


@check("section 6", "deadlines are taken, up to 60 s and beyond")
async def deadlines(c):
    one, two = await c.pair()
    for number, deadline in enumerate((1_000, 60_000, 3_600_000, (1 << 32) - 1), 1):
        one.send(number, chat(one.user, two.user), deadline_ms=deadline)
        await one.result(number)


@check("P39, P41", "DEADLINE_PASSED: not committed by that attempt, and taken by a later one, in order")
async def deadline_passed(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    passed = c.codes["ERROR_CODE_DEADLINE_PASSED"]
    sent, codes = 0, set()
    # A megabyte at once, of which each has a millisecond. A store with a fast disk keeps that for a while; the pause and the
    # acknowledgements keep one sender below what it may send to one recipient, and have in its inbox.
    while passed not in codes and sent < 100 * 16:
        todo = range(sent + 1, sent + 17)
        sent += 16
        refused = await burst(c, one, both, todo, deadline_ms=1, payload=bytes(60_000))
        codes |= set(refused.values())
        await retry(c, one, both, todo, refused, payload=bytes(60_000))
        for number in todo:
            c.same("number", (await two.want("deliver")).envelope.number, number)
            two.ack()
        await c.pause(320)
    c.holds("DEADLINE_PASSED was never met", passed in codes)


@check("P53, P39", "RATE_LIMITED, and what is behind it: no number is used, and all arrive in order")
async def rate(c):
    server = await c.server("rated")
    one, two = await c.pair(server)
    both = chat(one.user, two.user)
    numbers = range(1, 8)
    one.link.write(b"".join(one.bytes("send", number=n, chat=both, payload=b"%d" % n) for n in numbers))
    answers = [await one.answer(number) for number in numbers]
    codes = [c.name(it.code) if it.message.name == "Error" else None for it in answers]
    c.same("answers", codes[:4], [None, None, None, "RATE_LIMITED"])
    c.same("answers behind it", set(codes[4:]), {"EARLIER_REFUSED"})
    c.holds("all retryable", all(it.retryable for it in answers[3:]))
    c.holds("retry_after_ms", answers[3].retry_after_ms > 0)
    number = 4
    while number <= 7:
        one.send(number, both, b"%d" % number)
        answer = await one.answer(number)
        if answer.message.name == "SendResult":
            number += 1
        else:
            c.same("code", c.name(answer.code), "RATE_LIMITED")
            await c.pause(answer.retry_after_ms)
    for number in numbers:
        c.same("payload", (await two.want("deliver")).envelope.payload, b"%d" % number)


@check("P39", "a new session ends what an earlier refusal holds")
async def held_no_longer(c):
    server = await c.server("rated")
    one, two = await c.pair(server)
    both = chat(one.user, two.user)
    one.link.write(b"".join(one.bytes("send", number=n, chat=both) for n in range(1, 7)))
    answers = [await one.answer(number) for number in range(1, 7)]
    c.same("the last code", c.name(answers[-1].code), "EARLIER_REFUSED")
    again = await c.login(one.user, server=server)
    while True:
        again.send(6, both)
        answer = await again.answer(6)
        if answer.message.name == "SendResult":
            break
        c.same("code", c.name(answer.code), "RATE_LIMITED")
        await c.pause(answer.retry_after_ms)


@check("section 10, P38", "CHAT_BUSY: one recipient's rate is final for its number, and other chats go on")
async def busy(c):
    server = await c.server("choosy")
    one, two = await c.pair(server)
    third = await c.login(c.user(), server=server)
    both = chat(one.user, two.user)
    for number in range(1, 100):
        one.send(number, both, b"%d" % number)
        answer = await one.answer(number)
        if answer.message.name == "Error":
            break
    c.same("code", c.name(answer.code), "CHAT_BUSY")
    c.holds("three at once", number > 3)
    c.same("retryable", answer.retryable, False)
    c.holds("retry_after_ms", answer.retry_after_ms > 0)
    # A retry of what was committed has its answer all the same (P38).
    one.send(1, both, b"1")
    await one.result(1)
    one.send(number + 1, chat(one.user, third.welcome.user), b"to another")
    await one.result(number + 1)
    c.same("payload", (await third.want("deliver")).envelope.payload, b"to another")
    next_, after = number + 2, number
    while True:
        await c.pause(answer.retry_after_ms)
        one.send(next_, both, b"again", after=after)
        answer = await one.answer(next_)
        if answer.message.name == "SendResult":
            break
        next_, after = next_ + 1, next_
    await two.want("deliver", where=lambda it: it.envelope.payload == b"again")
