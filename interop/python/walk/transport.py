"""Section 2: the connection below the frames."""

from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion

from client.ids import chat
from client.link import ALPN, Closed

from .checks import check

# RFC 9001 4.8 and RFC 7301 3.2: CRYPTO_ERROR and the alert no_application_protocol.
NO_PROTOCOL = 0x100 + 120
FOREIGN_VERSION = 0x1A2A3A4A


@check("P1", "the handshake agrees on roadstead/1")
async def protocol_name(c):
    session = await c.connect()
    c.same("ALPN", session.link.handshake.alpn_protocol, ALPN)
    c.holds("no 0-RTT data is accepted", not session.link.handshake.early_data_accepted)


async def no_handshake(c, alpn):
    try:
        await c.connect(alpn=alpn)
    except Closed as end:
        c.same("transport error", end.transport, NO_PROTOCOL)
    else:
        raise AssertionError("the handshake completed")


@check("P1", "another protocol name is refused in the handshake")
async def other_protocol(c):
    await no_handshake(c, "h3")


@check("P1", "no protocol name is refused in the handshake")
async def no_protocol(c):
    await no_handshake(c, None)


@check("P1", "an unknown version is negotiated down to 1")
async def version(c):
    session = await c.connect(versions=[FOREIGN_VERSION, QuicProtocolVersion.VERSION_1])
    c.same("version", session.link._quic._version, QuicProtocolVersion.VERSION_1)


@check("section 2", "a server that asks for proof of the address sends a Retry, and serves who answers it")
async def retry(c):
    server = await c.server("wary")
    session = await c.login(c.user(), server=server)
    c.same("Retry packets", session.link._quic._retry_count, 1)


@check("P2", "one bidirectional stream is allowed, and none in the other direction")
async def streams_allowed(c):
    session = await c.login(c.user())
    quic = session.link._quic
    c.same("streams", (quic._remote_max_streams_bidi, quic._remote_max_streams_uni), (1, 0))
    c.same("streams seen", session.link.streams, {0})


async def transport_ends(c, session, code):
    try:
        await session.link.until(lambda: False)
    except Closed as end:
        c.same("transport error", end.transport, code)


@check("P2", "a second stream is a violation of the transport's protocol")
async def second_stream(c):
    session = await c.login(c.user())
    session.link._quic._remote_max_streams_bidi = 2
    session.link.write(b"\0", stream=4)
    await transport_ends(c, session, QuicErrorCode.STREAM_LIMIT_ERROR)


@check("section 2", "DATAGRAM frames are not announced, and one that comes closes the connection")
async def datagram(c):
    session = await c.login(c.user())
    c.same("datagrams", session.link._quic._remote_max_datagram_frame_size, None)
    session.link._quic.send_datagram_frame(b"unasked")
    session.link.transmit()
    await transport_ends(c, session, QuicErrorCode.PROTOCOL_VIOLATION)


def finish(session):
    session.link.write(b"", end=True)


def reset(session):
    session.link._quic.reset_stream(0, 7)
    session.link.transmit()


def stop(session):
    session.link._quic.stop_stream(0, 7)
    session.link.transmit()


WAYS = {"FIN": finish, "RESET_STREAM": reset, "STOP_SENDING": stop}


def ends_with_0(way, act):
    @check("P2", f"{way} ends the session with 0, and what was answered stays")
    async def in_session(c):
        one, two = await c.pair()
        one.send(1, chat(one.user, two.user))
        await one.result(1)
        act(one)
        await c.ends(one, "UNSPECIFIED")
        await two.want("deliver")

    @check("P2", f"{way} before the Hello ends the session with 0")
    async def without_a_word(c):
        session = await c.connect()
        if way != "FIN":
            session.link.write(b"\x10")
        act(session)
        await c.ends(session, "UNSPECIFIED")


for way, act in WAYS.items():
    ends_with_0(way, act)


@check("P3", "Welcome's prefix opens the next connection, and one without it is served too")
async def home_prefix(c):
    user = c.user()
    first = await c.login(user)
    prefix = first.welcome.home_prefix
    c.holds(f"a prefix of 1 to 16 bits: {dict(prefix or {})}", prefix and 1 <= prefix.length <= 16)
    c.holds("bits beyond the prefix are 0", prefix.bits & ((1 << (16 - prefix.length)) - 1) == 0)
    for given in (prefix, None, prefix):
        again = await c.login(user, device=2, prefix=given)
        c.same("the prefix of the same user", dict(again.welcome.home_prefix), dict(prefix))
        await c.leave(again)


@check("P3", "users have homes on both cores")
async def homes(c):
    bits = set()
    for _ in range(64):
        session = await c.login(c.user())
        bits.add(session.welcome.home_prefix.bits)
        if len(bits) > 1:
            return
    raise AssertionError(f"64 users have the prefix {bits}")


async def ticket(c, server, user):
    tickets = []
    session = await c.connect(server, tickets=tickets)
    session.say("hello", **c.hello(server, user))
    await session.want("welcome")
    while not tickets:
        await session.link.ping()
    await c.leave(session)
    return tickets[0]


@check("P1", "a TLS ticket resumes, and none allows 0-RTT data")
async def resumption(c):
    server, user = await c.server(), c.user()
    kept = await ticket(c, server, user)
    c.same("early data of the ticket", kept.max_early_data_size, None)
    session = await c.connect(server, ticket=kept)
    c.holds("TLS resumed", session.link.handshake.session_resumed)
    session.say("hello", **c.hello(server, user))
    await session.want("welcome")


@check("P1", "0-RTT data is not taken; sent again after the handshake, it is")
async def early_data(c):
    server, user = await c.server(), c.user()
    kept = await ticket(c, server, user)
    kept.max_early_data_size = MAX_EARLY_DATA
    early = (await c.connect(server)).bytes("hello", **c.hello(server, user, device=3))
    session = await c.connect(server, ticket=kept, early=early)
    c.holds("0-RTT data was offered", session.link._quic.tls.session_ticket.max_early_data_size)
    c.holds("0-RTT data is not accepted", not session.link.handshake.early_data_accepted)
    await session.want("welcome")


@check("section 2", "a client that moves keeps its session")
async def migration(c):
    one, two = await c.pair()
    await two.link.move()
    two.send(1, chat(one.user, two.user))
    await two.result(1)
    one.send(1, chat(one.user, two.user), b"to the new address")
    c.same("payload", (await two.want("deliver")).envelope.payload, b"to the new address")


@check("section 2", "a key update changes nothing")
async def key_update(c):
    one, two = await c.pair()
    for number in (1, 2, 3):
        one.send(number, chat(one.user, two.user))
        await one.result(number)
        await two.want("deliver")
        one.link.request_key_update()
        await one.link.ping()


@check("P16", "a QUIC PING is answered, and Welcome says how often")
async def heartbeat(c):
    session = await c.login(c.user())
    await session.link.ping()
    c.same("heartbeat_interval_ms", session.welcome.heartbeat_interval_ms, 120_000)
    c.same("max_idle_timeout, three intervals", session.link._quic._remote_max_idle_timeout, 360.0)
