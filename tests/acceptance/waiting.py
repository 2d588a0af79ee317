"""Waiting for something seen, up to a deadline."""

import time


def eventually(what, look, seconds=120):
    """Looks until `look` returns something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)  # between two looks
