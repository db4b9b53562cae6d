"""A client of the Roadstead protocol, written from docs/PROTOCOL.md and proto/schema and from nothing else.

It shares no line with the server: another language, another QUIC stack, another reading of the schema. The walk
(../walk) speaks every frame with it.

    schema.py    reads the .proto file
    wire.py      messages from and to bytes, and frames on a stream (sections 3 and 6)
    ids.py       chats, positions, message ids (section 4)
    tokens.py    signed tokens (section 5, P14)
    link.py      one QUIC connection with one stream (section 2)
    session.py   one session: what it says, what it hears, and what may never be heard
    ledger.py    which frames, fields and codes were spoken
"""
