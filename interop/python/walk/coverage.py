"""What the schema or the page has and the walk did not speak. A new frame, field, code or rule fails here until a check
speaks it."""

import re

# How many checks there are, so that one that is not registered any more is noticed.
CHECKS = 221

# What no check can bring about from outside, each with its reason and where it is tested.
UNREACHED_CODES = {
    "ERROR_CODE_INTERNAL": "a fault of the server's own",
    "ERROR_CODE_DEVICE_REMOVED": "no frame removes a device yet: src/shard/tests",
    "ERROR_CODE_STORE_UNAVAILABLE": "needs a store that fails: edge/tests/store_failure.rs",
    "ERROR_CODE_OVERLOADED": "needs a store that stalls: src/shard/tests",
    "ERROR_CODE_RECORD_DAMAGED": "needs a damaged store: src/shard/tests",
}
UNREACHED_REASONS = {
    "GAP_REASON_UNSPECIFIED": "never sent",
    "GAP_REASON_EXPIRED": "needs entries of 30 days: store/tests",
}
# What only a client can keep or break: a server can not be held to it.
RULES_OF_CLIENTS = {
    "P25": "store before Ack",
    "P28": "end a session whose cursors do not grow",
    "P35": "keep number and message before Send",
    "P40": "wait and back off before a retry",
    "P43": "decide by code and retryable",
    "P44": "unknown codes",
    "P45": "no reconnect after SESSION_REPLACED",
    "P46": "reconnect with back-off",
    "P47": "no reconnect at once with a refused credential",
    "P111": "capabilities that the client does not know",
    "P113": "take back what waits",
    "P114": "give up what may have been sent",
}
RULE = re.compile(r"^(?:- )?\*\*(P\d+)\*\*", re.MULTILINE)


def missing(ledger, checks, page):
    found = [f"no check speaks the frame {it}" for it in ledger.silent_frames()]
    found += [f"no check speaks the field {it}" for it in ledger.silent_fields()]
    found += unheard(ledger, "ErrorCode", ledger.codes, UNREACHED_CODES)
    found += unheard(ledger, "GapReason", ledger.reasons, UNREACHED_REASONS)
    found += unchecked(page, checks)
    if len(checks) != CHECKS:
        found.append(f"{len(checks)} checks instead of the {CHECKS} that walk/coverage.py counts")
    return found


def unchecked(page, checks):
    """Rules of the page that no check names and that are not of clients alone."""
    named = {word for it in checks for word in re.findall(r"P\d+", it.rules)}
    named |= {f"P{n}" for it in checks for low, high in re.findall(r"P(\d+) to P(\d+)", it.rules)
              for n in range(int(low), int(high) + 1)}
    rules = dict.fromkeys(RULE.findall(page))
    return [f"no check names the rule {it}" for it in rules if it not in named and it not in RULES_OF_CLIENTS]


def unheard(ledger, enum, heard, unreached):
    silent = ledger.silent_values(enum, heard)
    found = [f"no check meets {name}" for name in silent if name not in unreached]
    return found + [f"{name} is met: walk/coverage.py says it can not" for name in unreached if name not in silent]
