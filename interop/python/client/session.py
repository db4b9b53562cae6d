"""One session: what it says, what it hears, and what may never be heard.

Whatever a check is about, every frame that arrives is held to the rules that hold for all: `faults` has what broke
one of them.
"""

from . import ids
from .link import Closed
from .wire import Deframer, Malformed, frame, varint

ENTRIES = ("deliver", "receipt_update", "gap")
SKEW_MS = 120_000


class Session:
    def __init__(self, link, codec, ledger):
        self.link = link
        self.codec = codec
        self.ledger = ledger
        self.deframer = Deframer()
        self.heard = []
        self.faults = []
        self.welcome = None
        self.refused = None
        self.cursor = b""
        self.given = b""
        self.open_numbers = []
        link.take = self._take

    # Saying.

    def say(self, kind, _extra=b"", **fields):
        """Sends one frame; `_extra` are bytes behind the fields of its message."""
        self.link.write(self.bytes(kind, _extra, **fields))

    def bytes(self, kind, _extra=b"", **fields):
        """The bytes of one frame, which is about to leave."""
        self._note(kind, fields)
        body = self.codec.schema.messages["ClientFrame"].fields[kind]
        inner = self.codec.encode(body.type, fields, _extra)
        self.codec.note("ClientFrame", kind)
        self.ledger.frame("ClientFrame", kind)
        key = bytes([body.number << 3 | 2])
        return frame(key + varint(len(inner)) + inner)

    def _note(self, kind, fields):
        if kind == "send":
            self.open_numbers.append(fields.get("number", 0))
        if kind == "hello":
            self.cursor = fields.get("cursor", b"")

    def send(self, number, chat, payload=b"text", **fields):
        self.say("send", number=number, chat=chat, payload=payload, **fields)

    def ack(self, cursor=None):
        """Everything that was delivered, or up to a cursor."""
        self.say("ack", cursor=cursor or self.given)

    # Hearing.

    async def next(self):
        """The next frame, in order: its kind and its message."""
        await self.link.until(lambda: self.heard)
        return self.heard.pop(0)

    async def want(self, *kinds, where=lambda it: True):
        """The first frame of a kind, past others, which stay."""
        def find():
            for at, (kind, message) in enumerate(self.heard):
                if kind in kinds and where(message):
                    return (self.heard.pop(at)[1],)
            return None

        (found,) = await self.link.until(find)
        return found

    async def answer(self, number):
        """What answers a send: its result or its error."""
        return await self.want("send_result", "error", where=lambda it: it.number == number)

    async def result(self, number):
        answer = await self.answer(number)
        if answer.message.name != "SendResult":
            raise AssertionError(f"number {number} was refused: {dict(answer)}")
        return answer

    async def refusal(self, number):
        answer = await self.answer(number)
        if answer.message.name != "Error":
            raise AssertionError(f"number {number} was committed: {dict(answer)}")
        return answer

    async def ended(self):
        """The application's code with which the server closed."""
        try:
            await self.link.until(lambda: False)
        except Closed as end:
            return self.over(end)

    def over(self, end):
        """Takes note of the end; its code."""
        if end.code is None:
            raise AssertionError(f"the transport ended it: {end}") from end
        if self.refused is not None and end.code != self.refused:
            self._fault(f"P42: closed with {end.code} after an error of {self.refused}")
        self.ledger.codes[end.code] += 1
        return end.code

    def pending(self, kind):
        return [message for k, message in self.heard if k == kind]

    # What holds for all.

    def _fault(self, text):
        self.faults.append(text)

    def _take(self, data):
        try:
            for body in self.deframer.feed(data):
                self._frame(self.codec.decode("ServerFrame", body))
        except Malformed as error:
            self._fault(f"P5, P6: {error}")

    def _frame(self, value):
        if not value:
            return  # A later server's body (P9).
        ((kind, message),) = value.items()
        self.ledger.frame("ServerFrame", kind)
        if self.welcome is None and kind not in ("welcome", "error"):
            self._fault(f"{kind} before Welcome")
        if kind in ENTRIES:
            self._entry(kind, message)
        getattr(self, f"_on_{kind}", lambda it: None)(message)
        self.heard.append((kind, message))

    def _entry(self, kind, message):
        cursor = message.cursor
        if len(cursor) != 16:
            self._fault(f"a cursor of {len(cursor)} bytes")
        if self.welcome and ids.generation(cursor) != self.welcome.generation:
            self._fault("section 4: a cursor of another generation than Welcome's")
        if cursor <= self.given:
            self._fault(f"P19: {cursor.hex()} after {self.given.hex()}")
        self.given = max(cursor, self.given)

    def _on_welcome(self, it):
        if self.welcome is not None:
            self._fault("a second Welcome")
        self.welcome = it
        if self.cursor and not it.resync:
            self.given = self.cursor
        if not it.resume_token:
            self._fault("P14: a Welcome without a resume token")

    def _on_deliver(self, it):
        if it.envelope is None:
            self._fault("a Deliver without an envelope")
        elif not (it.envelope.message_id and it.envelope.sender and it.envelope.sender_device and it.envelope.number):
            self._fault(f"an envelope that lacks something: {dict(it.envelope)}")

    def _on_receipt_update(self, it):
        if not it.delivered and not it.read:
            self._fault("P29: a receipt that says nothing")

    def _on_gap(self, it):
        self.ledger.reasons[it.reason] += 1

    def _on_send_result(self, it):
        self._answered(it.number)
        if len(it.position) != 16 or ids.generation(it.position) != self.welcome.generation:
            self._fault(f"R1: the position {it.position.hex()}")
        if abs(ids.message_ms(it.message_id) - it.server_time_ms) > SKEW_MS:
            self._fault(f"section 4: the message id {it.message_id:#x} at {it.server_time_ms} ms")

    def _on_error(self, it):
        self.ledger.codes[it.code] += 1
        if it.code not in self.codec.schema.enums["ErrorCode"].values():
            self._fault(f"the code {it.code} is not of the schema")
        if it.number:
            self._answered(it.number)
        else:
            self.refused = it.code

    def _answered(self, number):
        if number in self.open_numbers:
            self.open_numbers.remove(number)
        else:
            self._fault(f"an answer to number {number}, which waits for none")
