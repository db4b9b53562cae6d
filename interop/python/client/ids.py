"""Identifiers (section 4)."""

# 2025-01-01T00:00:00Z in Unix ms.
EPOCH_MS = 1_735_689_600_000
# Below the 41 bits of ms: node and sequence. The uppermost bit is 0.
ID_LOW_BITS = 22


def chat(one, two):
    """The chat of two users."""
    low, high = sorted((one, two))
    return low.to_bytes(8, "big") + high.to_bytes(8, "big")


def generation(position):
    return int.from_bytes(position[:4], "big")


def message_ms(message_id):
    """The Unix time in a message id, in ms."""
    return EPOCH_MS + (message_id >> ID_LOW_BITS)
