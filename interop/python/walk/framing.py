"""Section 3: frames on the stream, whole, in pieces, and bad ones. Each vector of proto/tests is a check."""

from client.ids import chat
from client.wire import Deframer, Malformed, Reader, frame, varint

from .checks import CHECKS, Check, check

# What the classes of malformed.txt mean, by its head.
CLASSES = {
    "prefix": "FRAME_MALFORMED",
    "too_large": "FRAME_TOO_LARGE",
    "malformed": "FRAME_MALFORMED",
    "no_body": "FRAME_MALFORMED",
}
# "The code of that value", which the file does not name. With a number the send is refused, and the session goes on.
FIELDS = {
    "device_zero": "DEVICE_INVALID",
    "hello_cursor_of_15_bytes": "CURSOR_INVALID",
    "number_zero": "NUMBER_INVALID",
    "ack_of_17_bytes": "CURSOR_INVALID",
    "ack_empty": "CURSOR_INVALID",
    "read_position_of_8_bytes": "POSITION_INVALID",
}


def register(world):
    """One check for each line of the vectors."""
    for name, data in world.vectors("malformed.txt"):
        kind, rest = name.split("/")
        CHECKS.append(Check("P4 to P8", f"vector {name}", bad_vector(kind, rest, data)))
    for file, message in (("client.txt", "ClientFrame"), ("server.txt", "ServerFrame")):
        for name, data in world.vectors(file):
            CHECKS.append(Check("P6", f"vector {message} {name}", good_vector(message, data)))


def good_vector(message, data):
    async def run(c):
        (body,) = Deframer().feed(data)
        value = c.codec.decode(message, body)
        c.same("the bytes", frame(c.codec.encode(message, value)).hex(), data.hex())

    return run


def bad_vector(kind, name, data):
    async def run(c):
        if kind == "field":
            async with c.world.vector:
                await bad_field(c, name, data)
            return
        if kind != "incomplete" and kind != "no_body":
            refuses(data, c)
        session = await c.login(c.user())
        session.link.write(data)
        if kind == "incomplete":
            await session.link.ping()
            c.same("frames behind an incomplete one", session.heard, [])
        else:
            await c.ends(session, CLASSES[kind])

    return run


async def bad_field(c, name, data):
    """User 1 says it, to whom the chats of the vectors belong."""
    (body,) = Deframer().feed(data)
    value = c.codec.decode("ClientFrame", body)
    if value.hello:
        server = await c.server()
        session = await c.connect(server)
        value.hello["token"] = server.signer.token(1)
        session.link.write(frame(c.codec.encode("ClientFrame", value)))
        await c.ends(session, FIELDS[name])
        return
    session = await c.login(1)
    session.link.write(data)
    if name.startswith("chat"):
        session.open_numbers.append(value.send.number)
        await c.refused(session, value.send.number, "CHAT_INVALID", False)
    else:
        await c.ends(session, FIELDS[name])


def refuses(data, c):
    """The reading of this client agrees."""
    try:
        for body in Deframer().feed(data):
            c.codec.decode("ClientFrame", body)
    except Malformed:
        return
    raise AssertionError("this client takes it")


@check("P4", "a Hello in single bytes is a Hello")
async def single_bytes(c):
    server = await c.server()
    session = await c.connect(server)
    for byte in session.bytes("hello", **c.hello(server, c.user())):
        session.link.write(bytes([byte]))
    await session.want("welcome")


@check("P4", "many frames in one write are as many frames")
async def many_at_once(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.link.write(b"".join(one.bytes("send", number=n, chat=both, payload=b"%d" % n) for n in range(1, 51)))
    for number in range(1, 51):
        c.same("payload", (await two.want("deliver")).envelope.payload, b"%d" % number)
        await one.result(number)


@check("P4", "half a frame waits for its other half")
async def half_a_frame(c):
    one, two = await c.pair()
    whole = one.bytes("send", number=1, chat=chat(one.user, two.user), payload=b"in two halves")
    one.link.write(whole[:20])
    await one.link.ping()
    two.send(1, chat(one.user, two.user))
    await two.result(1)
    await one.want("deliver")
    one.link.write(whole[20:])
    await one.result(1)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"in two halves")


@check("P4", "half a frame and the end of the stream is an end, and nothing is executed")
async def half_a_frame_at_the_end(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.link.write(one.bytes("send", number=1, chat=both, payload=b"half")[:-1], end=True)
    await c.ends(one, "UNSPECIFIED")
    again = await c.login(one.user)
    again.send(2, both, b"whole")
    await again.result(2)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"whole")


@check("P7", "no byte behind a bad frame is looked at")
async def behind_a_bad_frame(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    one.link.write(b"\x01\xff" + one.bytes("send", number=1, chat=both, payload=b"behind"))
    await c.ends(one, "FRAME_MALFORMED")
    again = await c.login(one.user)
    again.send(2, both, b"first")
    await again.result(2)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"first")


@check("P5, P15", "a payload of payload_bytes_max arrives whole, and one byte more does not")
async def largest_payload(c):
    one, two = await c.pair()
    both = chat(one.user, two.user)
    most = one.welcome.limits.payload_bytes_max
    payload = bytes(n * 7 & 0xFF for n in range(most))
    one.send(1, both, payload)
    await one.result(1)
    c.holds("the payload is the same", (await two.want("deliver")).envelope.payload == payload)
    one.send(2, both, payload + b"!")
    await c.refused(one, 2, "PAYLOAD_TOO_LARGE", False)
    one.send(3, both)
    await one.result(3)


@check("P5", "a frame of frame_bytes_max is taken, and one byte more is refused by its prefix")
async def largest_frame(c):
    one, two = await c.pair()
    most = one.welcome.limits.frame_bytes_max
    fields = {"number": 1, "chat": chat(one.user, two.user), "payload": b"padded"}
    room = most - 512
    whole = one.bytes("send", varint(100 << 3 | 2) + varint(room) + bytes(room), **fields)
    room += most - (len(whole) - 3)
    one.link.write(send_padded(c, fields, room))
    await one.result(1)
    one.link.write(varint(most + 1))
    await c.ends(one, "FRAME_TOO_LARGE")


def send_padded(c, fields, room):
    send = c.codec.encode("Send", fields, padding(room))
    return frame(b"\x12" + varint(len(send)) + send)


def padding(room):
    """An unknown field with so many bytes."""
    return varint(100 << 3 | 2) + varint(room) + bytes(room)


@check("P110", "before Welcome a frame has at most 8,192 bytes")
async def largest_hello(c):
    server = await c.server()
    session = await c.connect(server)
    fields = c.hello(server, c.user())
    bare = len(c.codec.encode("Hello", fields, padding(4096)))
    body = c.codec.encode("Hello", fields, padding(4096 + 8192 - bare - 3))
    whole = frame(b"\x0a" + varint(len(body)) + body)
    c.same("the length of the frame", Reader(whole).varint(), 8192)
    session.link.write(whole)
    await session.want("welcome")
    session = await c.connect(server)
    session.link.write(varint(8193))
    await c.ends(session, "FRAME_TOO_LARGE")


@check("P6", "fields may come in any order, and the last of two counts")
async def any_order(c):
    one, two = await c.pair()
    parts = [{"number": 1}, {"chat": chat(one.user, two.user)}, {"payload": b"other"}, {"payload": b"last"}]
    send = b"".join(c.codec.encode("Send", part) for part in [*parts[1:], parts[0]])
    one.open_numbers.append(1)
    one.link.write(frame(b"\x12" + varint(len(send)) + send))
    await one.result(1)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"last")


@check("P8", "unknown fields of every wire type are passed over")
async def unknown_fields(c):
    server = await c.server()
    one, two = c.user(), c.user()
    strange = varint(200 << 3) + b"\xff\x01" + varint(201 << 3 | 1) + bytes(8)
    strange += varint(202 << 3 | 2) + b"\x03abc" + varint(203 << 3 | 5) + bytes(4)
    await c.login(two, server=server)
    session = await c.connect(server)
    session.say("hello", strange, **c.hello(server, one))
    await session.want("welcome")
    session.say("send", strange, number=1, chat=chat(one, two), payload=b"strange")
    await session.result(1)
    outer = c.codec.encode("ClientFrame", {"send": {"number": 2, "chat": chat(one, two)}}, strange)
    session.open_numbers.append(2)
    session.link.write(frame(outer))
    await session.result(2)


@check("P34, P6", "a payload may be empty")
async def empty_payload(c):
    one, two = await c.pair()
    one.send(1, chat(one.user, two.user), b"")
    await one.result(1)
    c.same("payload", (await two.want("deliver")).envelope.payload, b"")
