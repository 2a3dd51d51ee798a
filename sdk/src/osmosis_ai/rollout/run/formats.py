"""Numbers as reports show them."""

LARGE = 1e9
"""From here on a number is shown in powers of ten: whole it would fill the line."""


def format_duration(milliseconds: float) -> str:
    """``850ms``, ``12.3s`` or ``75m5.0s``, rounded before the unit is chosen."""
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f}ms"
    tenths = round(milliseconds / 100)
    if tenths < 600:
        return f"{tenths / 10:.1f}s"
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}m{rest / 10:.1f}s"


def format_number(value: float, decimals: int = 2, sign: str = "") -> str:
    """With so many decimals, and ``sign`` as of a format; what is large in six digits: ``1.23457e+300``."""
    return f"{value:{sign}.{decimals}f}" if abs(value) < LARGE else f"{value:{sign}.6g}"


def format_tokens(count: int) -> str:
    """With commas between thousands."""
    return f"{count:,}"


def run_cost(duration_ms: float, tokens: int) -> str:
    """What one run took, for its line."""
    return f"({format_duration(duration_ms)}, {format_tokens(tokens)} tokens)"


def format_rate(per_second: float, unit: str) -> str:
    """``5.6 rows/s``; what is slower than one a second by the minute: ``2.0 rows/min``."""
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 else f"{per_second * 60:.1f} {unit}/min"
