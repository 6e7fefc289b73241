"""i-PI's xyz lines as numbers, twenty times faster than by splitting words, and the other way.

``%8s %12.5e %12.5e %12.5e`` is a fixed layout: the digits of a whole frame are read, or written, at
once. A value is mantissa * 10^e or mantissa / 10^-e, one correctly rounded operation on exact
operands, so it equals ``float(text)`` to the last bit. Text is that of ``%12.5e``, too: where one
rounded operation leaves open which way the last digit goes, Python formats the number.
"""

from __future__ import annotations

import numpy as np

LINE = 48  # bytes of a line, its newline included
_EXACT = 22  # powers of ten up to this one are doubles
_POWERS = 10.0 ** np.arange(_EXACT + 1)
_DIGITS, _LEAST = 6, 10**5  # of a mantissa
_DOUBT = 1e-6  # of a last digit; its error is below 1e-9


def parse(block: bytes, n: int) -> np.ndarray | None:
    """The three columns of ``n`` lines, (n, 3); None where the layout is another one."""
    if len(block) != n * LINE:
        return None
    lines = np.frombuffer(block, np.uint8).reshape(n, LINE)
    # One row for each of the 13 characters of " -1.23456e-01".
    text = np.ascontiguousarray(lines[:, 8:47].reshape(3 * n, 13).T)
    digits = text[[2, 4, 5, 6, 7, 8, 11, 12]] - 48  # below "0" wraps to something large
    if (
        (lines[:, 47] != 10).any()
        or (text[0] != 32).any()
        or (text[3] != 46).any()
        or (text[9] != 101).any()
        or digits.max(initial=0) > 9
    ):
        return None
    number = digits.astype(np.int32)
    power = number[6] * 10 + number[7]
    power = np.where(text[10] == 45, -power, power) - 5
    if np.abs(power).max(initial=0) > _EXACT:
        return None
    mantissa = number[0]
    for digit in number[1:6]:
        mantissa = mantissa * 10 + digit
    scale = _POWERS[np.abs(power)]
    value = np.where(power >= 0, mantissa * scale, mantissa / scale)
    return np.where(text[1] == 45, -value, value).reshape(n, 3)


def render(labels: np.ndarray, values: np.ndarray) -> bytes | None:
    """Lines of xyz, the inverse of ``parse``; None where a label or a number takes more room.

    Args:
        labels: (n, 8) uint8, right-aligned text.
        values: (n, 3).
    """
    flat = np.ascontiguousarray(values, float).reshape(-1)
    text = np.full((13, len(flat)), 32, np.uint8)
    odd = _render_numbers(flat, text)
    for k in np.flatnonzero(odd):
        word = b" %12.5e" % flat[k]
        if len(word) != len(text):
            return None
        text[:, k] = np.frombuffer(word, np.uint8)
    lines = np.empty((len(labels), LINE), np.uint8)
    lines[:, :8], lines[:, 47] = labels, 10
    lines[:, 8:47] = text.T.reshape(len(labels), 39)
    return lines.tobytes()


def _render_numbers(flat: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Fills text (13, m); returns which of the numbers it cannot do for certain."""
    size = np.abs(flat)
    zero = size == 0
    safe = np.where((size > 1e-16) & (size < 1e20), size, 1.0)
    power = np.floor(np.log10(safe)).astype(np.int64)
    mantissa = _scaled(safe, power)
    power += (mantissa >= 10 * _LEAST).astype(np.int64) - (mantissa < _LEAST)  # of log10
    mantissa = _scaled(safe, power)
    number = np.rint(mantissa).astype(np.int64)
    odd = (np.abs(mantissa - np.floor(mantissa) - 0.5) < _DOUBT) | ((safe != size) & ~zero)
    over = number == 10 * _LEAST
    number[over], power[over] = _LEAST, power[over] + 1
    number[zero], power[zero] = 0, 0
    text[1] = np.where(np.signbit(flat), 45, 32)
    for k in (8, 7, 6, 5, 4, 2):
        number, digit = np.divmod(number, 10)
        text[k] = digit + 48
    text[3], text[9] = 46, 101
    text[10] = np.where(power < 0, 45, 43)
    text[11], text[12] = np.divmod(np.abs(power), 10)
    text[11:13] += 48
    return odd


def _scaled(size: np.ndarray, power: np.ndarray) -> np.ndarray:
    """size / 10^power * 10^5, by one operation."""
    up = _DIGITS - 1 - power
    scale = _POWERS[np.abs(up)]
    return np.where(up >= 0, size * scale, size / scale)
