"""One QUIC connection with one stream, on aioquic (section 2).

Some of it reaches into aioquic, for what a good client never does; the version is pinned.
"""

import asyncio
import os
import ssl

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionId

ALPN = "roadstead/1"
STREAM = 0
CONNECTION_ID_BYTES = 8
RESET_TOKEN_BYTES = 16


class Closed(Exception):
    """The connection ended: `code` is the application's, or None if the transport ended it."""

    def __init__(self, event):
        by_application = event.frame_type is None
        self.code = event.error_code if by_application else None
        self.transport = None if by_application else event.error_code
        who = "application" if by_application else "transport"
        super().__init__(f"the {who}'s code {event.error_code:#x} {event.reason_phrase}")

    @classmethod
    def by_application(cls, code):
        return cls(events.ConnectionTerminated(code, None, ""))


class Link(QuicConnectionProtocol):
    def __init__(self, quic):
        super().__init__(quic)
        self.handshake = None
        self.end = None
        self.streams = set()
        self.changed = asyncio.Event()
        self.resets = []
        self.take = lambda data: None

    def datagram_received(self, data, addr):
        # aioquic does not look for stateless resets (RFC 9000 10.3).
        if data[-RESET_TOKEN_BYTES:] == self._quic._peer_cid.stateless_reset_token:
            self.resets.append(data)
            self.changed.set()
        super().datagram_received(data, addr)

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.handshake = event
        elif isinstance(event, events.ConnectionTerminated):
            self.end = Closed(event)
        elif isinstance(event, events.StreamDataReceived):
            self.streams.add(event.stream_id)
            if event.stream_id == STREAM:
                self.take(event.data)
        self.changed.set()

    async def until(self, done):
        """Waits until `done` says something; its answer. One caller at a time."""
        while not (answer := done()):
            if self.end:
                raise self.end
            self.changed.clear()
            await self.changed.wait()
        return answer

    def write(self, data, end=False, stream=STREAM):
        self._quic.send_stream_data(stream, data, end)
        self.transmit()

    def leave(self, code=0):
        self.close(code)

    def hang_up(self):
        """Says no more, and hears nothing."""
        self._transport.close()

    async def move(self):
        """To another socket, as a client that changes networks."""
        old = self._transport
        await bind(self)
        old.close()
        self.change_connection_id()


async def bind(link):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: link, local_addr=("127.0.0.1", 0))


def configuration(certificate, alpn=ALPN, versions=None, ticket=None):
    it = QuicConfiguration(
        is_client=True,
        alpn_protocols=[alpn] if alpn else None,
        server_name="localhost",
        verify_mode=ssl.CERT_REQUIRED,
        session_ticket=ticket,
    )
    it.load_verify_locations(cafile=str(certificate))
    if versions:
        it.supported_versions = versions
    return it


def first_id(prefix):
    """The first destination connection id: the bits of Welcome.home_prefix, the others at random (P3)."""
    whole = int.from_bytes(os.urandom(CONNECTION_ID_BYTES), "big")
    if prefix:
        length = prefix.length
        low = 8 * CONNECTION_ID_BYTES - length
        whole = prefix.bits >> (16 - length) << low | whole & ((1 << low) - 1)
    return whole.to_bytes(CONNECTION_ID_BYTES, "big")


async def dial(address, configured, prefix=None, tickets=None, early=b""):
    """A connection after its handshake. `early` is sent as 0-RTT data, if the ticket lets it."""
    quic = QuicConnection(
        configuration=configured,
        session_ticket_handler=tickets.append if tickets is not None else None,
    )
    chosen = first_id(prefix)
    quic._peer_cid = QuicConnectionId(cid=chosen, sequence_number=None)
    quic._original_destination_connection_id = chosen
    link = Link(quic)
    await bind(link)
    link.connect(address, transmit=not early)
    if early:
        link.write(early)
    await link.until(lambda: link.handshake)
    return link
