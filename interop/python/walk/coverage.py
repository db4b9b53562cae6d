"""What the schema has and the walk did not speak. A new frame, field or code fails here until a check speaks it."""

# How many checks there are, so that one that is not registered any more is noticed.
CHECKS = 220

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


def missing(ledger, checks):
    found = [f"no check speaks the frame {it}" for it in ledger.silent_frames()]
    found += [f"no check speaks the field {it}" for it in ledger.silent_fields()]
    found += unheard(ledger, "ErrorCode", ledger.codes, UNREACHED_CODES)
    found += unheard(ledger, "GapReason", ledger.reasons, UNREACHED_REASONS)
    if checks != CHECKS:
        found.append(f"{checks} checks instead of the {CHECKS} that walk/coverage.py counts")
    return found


def unheard(ledger, enum, heard, unreached):
    silent = ledger.silent_values(enum, heard)
    found = [f"no check meets {name}" for name in silent if name not in unreached]
    return found + [f"{name} is met: walk/coverage.py says it can not" for name in unreached if name not in silent]
