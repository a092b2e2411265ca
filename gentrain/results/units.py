"""Write quantities for people: seconds."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes or seconds; `unknown` for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{seconds:.1f}s" if seconds < 10 else f"{rest}s"
