"""Messages from and to bytes by the tables of the schema, and frames on a stream (P4 to P9)."""

from .schema import BYTES, FIXED, VARINTS

VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5
FIXED_TYPES = {"fixed32": FOUR, "fixed64": EIGHT}
MAX_FIELD = (1 << 29) - 1


class Malformed(Exception):
    """No message of the schema, or no length prefix (P5, P7)."""


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Value(dict):
    """A message: what was given, and the defaults of proto3 for what was not."""

    def __init__(self, message, values):
        super().__init__(values)
        self.message = message

    def __getattr__(self, name):
        if name in self:
            return self[name]
        it = self.message.fields.get(name)
        if it is None:
            raise AttributeError(f"{self.message.name} has no {name}")
        if it.repeated:
            return []
        if it.presence:
            return None
        return {"string": "", "bytes": b"", "bool": False}.get(it.type, 0)


class Codec:
    """Messages of one schema. `note` hears of every field that is spoken."""

    def __init__(self, schema, note=lambda message, name: None):
        self.schema = schema
        self.note = note
        self.unknown = []

    def encode(self, name, values, extra=b""):
        """Fields in ascending order; `extra` follows them as it is."""
        message = self.schema.messages[name]
        stranger = set(values) - set(message.fields)
        if stranger:
            raise ValueError(f"{name} has no {stranger}")
        out = bytearray()
        for it in sorted(message.fields.values(), key=lambda f: f.number):
            for value in self._given(it, values):
                out += self._field(it, value)
                self.note(name, it.name)
        return bytes(out) + extra

    @staticmethod
    def _given(it, values):
        value = values.get(it.name)
        if it.repeated:
            return value or []
        if value is None or (not it.presence and not value):
            return []
        return [value]

    def _field(self, it, value):
        if it.type in FIXED:
            return varint(it.number << 3 | FIXED_TYPES[it.type]) + value.to_bytes(FIXED[it.type], "little")
        if it.type in VARINTS or it.type in self.schema.enums:
            return varint(it.number << 3 | VARINT) + varint(int(value))
        if it.type == "string":
            value = value.encode()
        elif it.type in self.schema.messages:
            value = self.encode(it.type, value)
        return varint(it.number << 3 | LENGTH) + varint(len(value)) + value

    def decode(self, name, data):
        message = self.schema.messages[name]
        by_number = {it.number: it for it in message.fields.values()}
        values = {}
        reader = Reader(data)
        while reader.left():
            key = reader.varint()
            number, kind = key >> 3, key & 7
            if not 1 <= number <= MAX_FIELD:
                raise Malformed(f"{name}: field number {number}")
            raw = reader.value(kind)
            it = by_number.get(number)
            if it is None:
                self.unknown.append((name, number))
                continue
            self.note(name, it.name)
            self._keep(message, values, it, self._scalar(it, kind, raw))
        return Value(message, values)

    def _scalar(self, it, kind, raw):
        if it.type in FIXED:
            wanted, value = FIXED_TYPES[it.type], raw
        elif it.type in VARINTS or it.type in self.schema.enums:
            wanted, value = VARINT, raw
        else:
            wanted, value = LENGTH, raw
        if kind != wanted:
            raise Malformed(f"{it.name}: wire type {kind}")
        if it.type == "bool":
            return bool(value)
        if it.type == "string":
            try:
                return bytes(value).decode()
            except UnicodeDecodeError as error:
                raise Malformed(it.name) from error
        if it.type in self.schema.messages:
            return self.decode(it.type, value)
        return bytes(value) if it.type in BYTES else value

    @staticmethod
    def _keep(message, values, it, value):
        if it.repeated:
            values.setdefault(it.name, []).append(value)
            return
        if it.oneof:
            for other in message.oneof(it.oneof):
                values.pop(other, None)
        values[it.name] = value


class Reader:
    def __init__(self, data):
        self.data = memoryview(data)
        self.at = 0

    def left(self):
        return len(self.data) - self.at

    def take(self, length):
        if length > self.left():
            raise Malformed("it ends too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise Malformed("a varint above 64 bits")
                return value
        raise Malformed("a varint of more than ten bytes")

    def value(self, kind):
        if kind == VARINT:
            return self.varint()
        if kind in (EIGHT, FOUR):
            return int.from_bytes(self.take(8 if kind == EIGHT else 4), "little")
        if kind == LENGTH:
            return self.take(self.varint())
        raise Malformed(f"wire type {kind}")


def frame(body):
    """A message with its length before it."""
    return varint(len(body)) + body


class Deframer:
    """Cuts a stream into the bytes of frames, however it comes (P4)."""

    def __init__(self, bytes_max=65536):
        self.bytes_max = bytes_max
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data
        while (length := self._prefix()) is not None:
            size, start = length
            if len(self.buffer) < start + size:
                return
            body = bytes(self.buffer[start : start + size])
            del self.buffer[: start + size]
            yield body

    def _prefix(self):
        value = 0
        for at, byte in enumerate(self.buffer[:3]):
            value |= (byte & 0x7F) << 7 * at
            if byte < 0x80:
                if value == 0 or (at > 0 and byte == 0):
                    raise Malformed("a length that is 0 or not in its shortest form")
                if value > self.bytes_max:
                    raise Malformed(f"a frame of {value} bytes")
                return value, at + 1
        if len(self.buffer) >= 3:
            raise Malformed("a length of more than three bytes")
        return None
