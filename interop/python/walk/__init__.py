"""The walk: named checks of docs/PROTOCOL.md against a real server, with the client of ../client.

    python -m walk --server target/release/roadstead --repository .

It prints a line for each check and one with the counts, and fails if a check fails, if a check is missing, or if the
schema has a frame, a field or a code that nobody spoke, or the page a rule that no check names.
"""
