"""Reads the .proto files that this protocol is written in: messages, enums, oneofs, scalar fields.

What it does not know of the language it refuses: a schema that is half read would check nothing.
"""

import re
from dataclasses import dataclass, field, replace

TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][A-Za-z0-9_.]*|\d+|[{}=;<>,\[\]]')
COMMENT = re.compile(r"//[^\n]*")

VARINTS = {"uint32", "uint64", "bool"}
FIXED = {"fixed32": 4, "fixed64": 8}
BYTES = {"string", "bytes"}
SCALARS = VARINTS | set(FIXED) | BYTES


@dataclass(frozen=True)
class Field:
    name: str
    number: int
    type: str
    repeated: bool = False
    # Whether it is told from its default: `optional`, of a oneof, or a message.
    presence: bool = False
    oneof: str | None = None


@dataclass
class Message:
    name: str
    fields: dict = field(default_factory=dict)

    def add(self, new):
        if new.name in self.fields or new.number in {f.number for f in self.fields.values()}:
            raise ValueError(f"{self.name}.{new.name} = {new.number} is there twice")
        self.fields[new.name] = new

    def oneof(self, name):
        return [f.name for f in self.fields.values() if f.oneof == name]


class Schema:
    """The messages and enums of a package, by name."""

    def __init__(self, text):
        self.messages = {}
        self.enums = {}
        self._tokens = TOKEN.findall(COMMENT.sub("", text))
        self._at = 0
        while self._at < len(self._tokens):
            self._top()
        for message in self.messages.values():
            for it in message.fields.values():
                if it.type not in SCALARS | set(self.messages) | set(self.enums):
                    raise ValueError(f"{message.name}.{it.name}: the type {it.type} is unknown")
                if it.type in self.messages:
                    message.fields[it.name] = replace(it, presence=True)

    def _next(self, *wanted):
        token = self._tokens[self._at]
        if wanted and token not in wanted:
            raise ValueError(f"{token!r} instead of {wanted!r}")
        self._at += 1
        return token

    def _top(self):
        word = self._next("syntax", "package", "message", "enum")
        if word == "syntax":
            self._next("=")
            self._next('"proto3"')
            self._next(";")
        elif word == "package":
            self._next()
            self._next(";")
        elif word == "message":
            self._message()
        else:
            self._enum()

    def _message(self):
        message = Message(self._next())
        self.messages[message.name] = message
        self._next("{")
        while self._tokens[self._at] != "}":
            if self._tokens[self._at] == "oneof":
                self._next()
                name = self._next()
                self._next("{")
                while self._tokens[self._at] != "}":
                    message.add(self._field(oneof=name))
                self._next("}")
            else:
                message.add(self._field())
        self._next("}")

    def _field(self, oneof=None):
        first = self._next()
        label = first if first in ("optional", "repeated") else None
        kind = self._next() if label else first
        name = self._next()
        self._next("=")
        number = int(self._next())
        self._next(";")
        presence = oneof is not None or label == "optional"
        return Field(name, number, kind, label == "repeated", presence, oneof)

    def _enum(self):
        name = self._next()
        values = self.enums[name] = {}
        self._next("{")
        while self._tokens[self._at] != "}":
            value = self._next()
            self._next("=")
            values[value] = int(self._next())
            self._next(";")
        self._next("}")
