"""aioquic as a peer of the interoperation runs.

    peer.py server|client CHAIN KEY OPTIONS

It takes one JSON object a line (script.rs: Step or Order, or {"facts": true}) and answers each with one
line: {"ok": ...} or {"error": "..."}. A server first prints {"ok": "ADDRESS"}. It ends with its input.
"""

import asyncio
import hashlib
import json
import sys

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

ALPN = "roadstead/1"
FOREIGN_VERSION = 0x1A2A3A4A
STEP_SECONDS = 60
DATAGRAM_BYTES = 700


def payload(n, size):
    """The bytes of stream n: script.rs has the same."""
    state = 0x9E3779B9 * (n + 1) & 0xFFFFFFFF
    out = bytearray()
    for _ in range(size):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        out.append(state >> 8 & 0xFF)
    return bytes(out)


class Facts:
    def __init__(self):
        self.connected = 0
        self.alpn = ""
        self.resumed = []
        self.streams = 0
        self.bytes = 0
        self.datagrams = 0
        self.remotes = []
        self.ends = []
        self.notes = []

    def saw(self, address):
        text = f"{address[0]}:{address[1]}"
        if self.remotes[-1:] != [text]:
            self.remotes.append(text)


class Peer(QuicConnectionProtocol):
    """Either end: it notes what happened and collects what arrived."""

    def __init__(self, quic, facts, echoes, stream_handler=None):
        super().__init__(quic)
        self.facts = facts
        self.echoes = echoes
        self.waiter = None
        self.completed = False
        self.ended = False
        self.closed_here = False
        self.received = {}
        self.datagrams = []

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        if address := self._quic.get_peer_address():
            self.facts.saw(address)

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.completed = True
            self.facts.connected += 1
            self.facts.alpn = event.alpn_protocol
            self.facts.resumed.append(event.session_resumed)
        elif isinstance(event, events.ConnectionTerminated):
            self.ended = True
            self.facts.ends.append(self.end(event))
        elif isinstance(event, events.StreamDataReceived):
            self.stream_data(event)
        elif isinstance(event, events.DatagramFrameReceived):
            if self.echoes:
                self._quic.send_datagram_frame(event.data)
                self.facts.datagrams += 1
            else:
                self.datagrams.append(event.data)
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)

    def end(self, event):
        if self.closed_here:
            return "here"
        if event.frame_type is None:
            return {"application": {"code": event.error_code, "reason": event.reason_phrase}}
        return {"other": f"error {event.error_code:#x} {event.reason_phrase}"}

    def stream_data(self, event):
        id = event.stream_id
        data, _ = self.received.get(id, (bytearray(), False))
        data += event.data
        self.received[id] = (data, event.end_stream)
        if not self.echoes:
            return
        bidirectional = id & 2 == 0
        if bidirectional:
            self._quic.send_stream_data(id, event.data, event.end_stream)
        elif event.end_stream:
            back = self._quic.get_next_available_stream_id(is_unidirectional=True)
            self._quic.send_stream_data(back, bytes(self.received[id][0]), True)
        if event.end_stream:
            self.facts.streams += 1
            self.facts.bytes += len(self.received.pop(id)[0])

    async def until(self, done):
        """Waits until `done`; one caller at a time."""
        while not done() and not self.ended:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        if not done():
            raise RuntimeError(f"the connection ended: {self.facts.ends}")

    def close_with(self, code, reason):
        self.closed_here = True
        self._quic.close(error_code=code, reason_phrase=reason)
        self.transmit()


def configuration(is_client, chain, key, options):
    config = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        max_datagram_frame_size=65536,
        server_name="localhost" if is_client else None,
    )
    if is_client:
        config.load_verify_locations(cafile=chain)
        if options.get("foreign_version"):
            config.supported_versions = [FOREIGN_VERSION, QuicProtocolVersion.VERSION_1]
    else:
        config.load_cert_chain(chain, key)
        if options.get("foreign_version"):
            config.supported_versions = [QuicProtocolVersion.VERSION_2]
    return config


class Client:
    def __init__(self, chain, key, options):
        self.config = configuration(True, chain, key, options)
        self.facts = Facts()
        self.peer = None
        self.tickets = []

    async def take(self, command):
        await getattr(self, command["step"])(**{k: v for k, v in command.items() if k != "step"})

    async def connect(self, to):
        if self.tickets:
            self.config.session_ticket = self.tickets.pop()
        host, port = to.rsplit(":", 1)
        quic = QuicConnection(
            configuration=self.config, session_ticket_handler=self.tickets.append
        )
        self.peer = Peer(quic, self.facts, echoes=False)
        await self.bind()
        self.peer.connect((host, int(port)))
        await self.peer.until(lambda: self.peer.completed)

    async def bind(self):
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self.peer, local_addr=("127.0.0.1", 0)
        )

    async def echo(self, streams, bytes, uni=False):
        sent = []
        ids = []
        self.peer.received.clear()
        for n in range(streams):
            data = payload(n, bytes)
            id = self.peer._quic.get_next_available_stream_id(is_unidirectional=uni)
            self.peer._quic.send_stream_data(id, data, True)
            ids.append(id)
            sent.append(hashlib.sha256(data).digest())
        self.peer.transmit()

        def ended():
            return [i for i, (_, end) in self.peer.received.items() if end]

        await self.peer.until(lambda: len(ended()) == streams)
        back = [hashlib.sha256(self.peer.received[i][0]).digest() for i in ended()]
        if sorted(back) != sorted(sent):
            raise RuntimeError("wrong checksums")
        self.facts.streams += streams
        self.facts.bytes += streams * bytes

    async def echo_uni(self, streams, bytes):
        await self.echo(streams, bytes, uni=True)

    async def datagram(self):
        data = payload(0, DATAGRAM_BYTES)
        while data not in self.peer.datagrams:
            self.peer._quic.send_datagram_frame(data)
            self.peer.transmit()
            try:
                await asyncio.wait_for(self.peer.until(lambda: data in self.peer.datagrams), 1)
            except asyncio.TimeoutError:
                pass
        self.facts.datagrams += 1

    async def await_ticket(self):
        # A ticket wakes nobody, but what brings it is an event's neighbour: ask for one.
        while not self.tickets:
            await self.peer.ping()

    async def update_keys(self):
        self.peer.request_key_update()

    async def migrate(self):
        old = self.peer._transport
        await self.bind()
        old.close()
        self.peer.change_connection_id()

    async def close(self, code, reason):
        self.peer.close_with(code, reason)

    async def await_end(self):
        self.peer._quic.send_ping(0)
        self.peer.transmit()
        await self.peer.until(lambda: self.peer.ended)


class Server:
    def __init__(self, chain, key, options):
        self.config = configuration(False, chain, key, options)
        self.retry = options.get("retry", False)
        self.facts = Facts()
        self.peers = []
        self.tickets = {}

    def make(self, quic, stream_handler=None):
        peer = Peer(quic, self.facts, echoes=True)
        self.peers.append(peer)
        return peer

    async def start(self):
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: QuicServer(
                configuration=self.config,
                create_protocol=self.make,
                session_ticket_fetcher=self.tickets.get,
                session_ticket_handler=lambda t: self.tickets.update({t.ticket: t}),
                retry=self.retry,
            ),
            local_addr=("127.0.0.1", 0),
        )
        host, port = transport.get_extra_info("sockname")
        return f"{host}:{port}"

    async def take(self, command):
        if command["order"] == "update_keys":
            self.peers[-1].request_key_update()
        elif command["order"] == "close":
            self.peers[-1].close_with(command["code"], command["reason"])
        else:
            raise RuntimeError(f"{command['order']} is not offered")


def answer(value):
    print(json.dumps(value), flush=True)


async def main():
    role, chain, key, options = sys.argv[1:]
    actor = (Server if role == "server" else Client)(chain, key, json.loads(options))
    if role == "server":
        answer({"ok": await actor.start()})
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if "facts" in command:
            answer({"ok": vars(actor.facts)})
            continue
        try:
            await asyncio.wait_for(actor.take(command), STEP_SECONDS)
            answer({"ok": None})
        except Exception as error:  # whatever it is, the scenario tells it
            answer({"error": f"{type(error).__name__}: {error}"})


asyncio.run(main())
