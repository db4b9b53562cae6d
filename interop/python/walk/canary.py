"""Frames that no server may send, fed to this client: it notices each. Without these a walk that checks nothing
would look like one that finds nothing."""

from collections import Counter

from client.link import Closed
from client.session import Session
from client.wire import Deframer, Malformed, frame

from .checks import Check, check
from .coverage import unchecked, unheard

USER = 7
CHAT = bytes(7) + b"\1" + bytes(7) + b"\7"


class Silent:
    """A link to nobody."""

    end = None

    def leave(self):
        pass

    def hang_up(self):
        pass


class Unnoted:
    """The ledger is of what a server said."""

    def __init__(self, ledger):
        self.schema = ledger.schema
        self.codes = Counter()
        self.reasons = Counter()

    def frame(self, direction, body):
        pass


def position(n, generation=1):
    return generation.to_bytes(4, "big") + n.to_bytes(10, "big") + bytes(2)


def envelope(**fields):
    return {"message_id": 1, "chat": CHAT, "sender": 1, "sender_device": 1, "number": 1} | fields


WELCOME = {"welcome": {"user": USER, "generation": 1, "resume_token": b"token"}}
RESULT = {"number": 1, "message_id": 1 << 22, "position": position(1), "server_time_ms": 1_735_689_600_001}
DELIVER = {"deliver": {"cursor": position(5), "envelope": envelope()}}

FAULTS = {
    "an entry before Welcome": [DELIVER],
    "a second Welcome": [WELCOME, WELCOME],
    "a Welcome without a resume token": [{"welcome": {"user": USER, "generation": 1}}],
    "a cursor that comes twice": [WELCOME, DELIVER, DELIVER],
    "a cursor that falls": [WELCOME, DELIVER, {"gap": {"cursor": position(4), "reason": 1}}],
    "a cursor of 15 bytes": [WELCOME, {"gap": {"cursor": position(4)[:15], "reason": 1}}],
    "a cursor of another generation": [WELCOME, {"gap": {"cursor": position(4, 2), "reason": 1}}],
    "a Deliver without an envelope": [WELCOME, {"deliver": {"cursor": position(5)}}],
    "an envelope without its sender": [
        WELCOME,
        {"deliver": {"cursor": position(5), "envelope": envelope(sender=0)}},
    ],
    "a receipt that says nothing": [WELCOME, {"receipt_update": {"cursor": position(5), "chat": CHAT, "user": 1}}],
    "an answer that nobody waits for": [WELCOME, {"send_result": RESULT}],
    "a refusal that nobody waits for": [WELCOME, {"error": {"code": 16, "number": 1}}],
    "a code that the schema has not": [WELCOME, {"error": {"code": 4_000}}],
}


def planted(name, frames):
    @check("canary", f"noticed: {name}")
    async def run(c):
        session = Session(Silent(), c.plain_codec(), Unnoted(c.ledger))
        for value in frames:
            c.same("faults before it", session.faults, [])
            session.link.take(frame(session.codec.encode("ServerFrame", value)))
        c.same("faults", len(session.faults), 1)


for name, frames in FAULTS.items():
    planted(name, frames)


@check("canary", "noticed: a position of another generation, and a message id of another time")
async def planted_result(c):
    for wrong in ({"position": position(1, 2)}, {"message_id": 1 << 62}):
        session = Session(Silent(), c.plain_codec(), Unnoted(c.ledger))
        session.open_numbers.append(1)
        for value in (WELCOME, {"send_result": RESULT | wrong}):
            session.link.take(frame(session.codec.encode("ServerFrame", value)))
        c.same("faults", len(session.faults), 1)


@check("canary", "noticed: a close with another code than its Error")
async def planted_close(c):
    session = Session(Silent(), c.plain_codec(), Unnoted(c.ledger))
    session.refused = 2
    session.over(Closed.by_application(3))
    c.same("faults", len(session.faults), 1)


@check("P9", "a frame whose body is a later server's is passed over")
async def later_body(c):
    session = Session(Silent(), c.plain_codec(), Unnoted(c.ledger))
    later = frame(b"\xa2\x06\x01\x00")
    for data in (frame(session.codec.encode("ServerFrame", WELCOME)), later):
        session.link.take(data)
    session.link.take(frame(session.codec.encode("ServerFrame", DELIVER)))
    c.same("faults", session.faults, [])
    c.same("frames", [kind for kind, _ in session.heard], ["welcome", "deliver"])


@check("canary", "noticed: a code that no check meets, and one that is met although it can not be")
async def planted_code(c):
    every = dict.fromkeys(c.codes.values(), 1)
    heard = every | {c.codes["ERROR_CODE_INTERNAL"]: 0}
    c.same("nothing", unheard(c.ledger, "ErrorCode", heard, {"ERROR_CODE_INTERNAL": "a reason"}), [])
    c.same("one that is not met", len(unheard(c.ledger, "ErrorCode", heard, {})), 1)
    c.same("one that is", len(unheard(c.ledger, "ErrorCode", every, {"ERROR_CODE_INTERNAL": "a reason"})), 1)


@check("canary", "noticed: a rule of the page that no check names")
async def planted_rule(c):
    rules = ["P1", "P4 to P8", "P34, P6"]
    checks = [Check(rules=it, name="", run=None) for it in rules]
    page = "- **P1** one\n**P6** two\n- **P7** three\n- **P25** of clients\n- **P99** four, see **P98**\n"
    c.same("rules", unchecked(page, checks), ["no check names the rule P99"])


@check("P5", "bad prefixes are noticed here too, byte by byte")
async def bad_prefixes(c):
    for data in (b"\0", b"\x81\0", b"\x81\x80\x04", b"\xff\xff\xff"):
        deframer = Deframer()
        try:
            for byte in data:
                list(deframer.feed(bytes([byte])))
        except Malformed:
            continue
        raise AssertionError(data.hex())
