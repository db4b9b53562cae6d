"""What was spoken: frames, fields and codes, so that what the schema has and nobody spoke is noticed."""

from collections import Counter

DIRECTIONS = ("ClientFrame", "ServerFrame")


class Ledger:
    def __init__(self, schema):
        self.schema = schema
        self.frames = Counter()
        self.fields = Counter()
        self.codes = Counter()
        self.reasons = Counter()

    def field(self, message, name):
        self.fields[message, name] += 1

    def frame(self, direction, body):
        self.frames[direction, body] += 1

    def kinds(self):
        return [(d, name) for d in DIRECTIONS for name in self.schema.messages[d].oneof("body")]

    def silent_frames(self):
        return [f"{d}.{name}" for d, name in self.kinds() if not self.frames[d, name]]

    def all_fields(self):
        return [(m.name, f) for m in self.schema.messages.values() for f in m.fields]

    def silent_fields(self):
        return [f"{m}.{f}" for m, f in self.all_fields() if not self.fields[m, f]]

    def silent_values(self, enum, heard):
        return [name for name, value in self.schema.enums[enum].items() if not heard[value]]
