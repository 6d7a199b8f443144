"""Changes to inputs that keep them recognisable: a parser behind a checksum or a header never sees raw noise.

Every function takes bytes and a seeded generator and returns other bytes. None of them knows a parser of ours; the
formats are those of the files.
"""

import copy
import json
import random
from collections.abc import Callable

Mutator = Callable[[bytes, random.Random], bytes]

NASTY_NUMBERS = (
    "0", "-1", "1", "-0", "0.0", "1e308", "-1e308", "1e309", "1e999", "nan", "NaN", "inf", "-inf", "Infinity",
    "9" * 20, "9" * 400, "1" * 5000, "2147483647", "2147483648", "-2147483649", "4294967296", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "0x10", "1_0", "1.5", "1e-400", "١٢", " 7 ",
    "+3", "1e", ".", "-", "1.2.3", "0.1e1", "65535", "65536", "32768", "511", "513",
)  # fmt: skip
NASTY_TEXTS = (
    "", " ", "\x00", "\t", "\ufeff", "\u2028", "é", "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    "🩻", "../../../etc/passwd", "C:\\x", "%s%n", "{0.__class__}", "__import__('os')", "=1+1", '"', "'", ",", ";", "\\",
    "a" * 300, "null", "None", "true", "PLANTEDQZ", "mm", "cm", "px", "mm2", "/" * 400 + "\n", "1 " * 200, "(" * 200,
)  # fmt: skip
_SEPARATOR = b"\n--8<--\n"


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, repeated, removed and moved bytes; lengths gone wild; a piece many times over."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(changed)))
                raw = (value & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
                changed[at : at + width] = raw
            case 2:
                changed[at:at] = changed[max(0, at - rng.randrange(1, 64)) : at]
            case 3:
                del changed[at : at + rng.randrange(1, 32)]
            case 4:
                other = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + rng.randrange(1, 128)]
            case 5:
                # What is quadratic shows itself on long repeats only.
                piece = bytes(changed[at : at + rng.randrange(1, 5)]) or b"0"
                changed[at:at] = piece * rng.choice((16, 256, 1500))
            case 6:
                text = rng.choice(NASTY_NUMBERS + NASTY_TEXTS)
                changed[at : at + rng.randrange(0, 8)] = text.encode("utf-8", "surrogateescape")
            case 7:
                if changed:
                    changed[at : at + 1] = bytes([changed[min(at, len(changed) - 1)] ^ (1 << rng.randrange(8))])
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)


def nasty_text(rng: random.Random) -> str:
    """A number or word that parsers stumble over."""
    return rng.choice(NASTY_NUMBERS if rng.random() < 0.6 else NASTY_TEXTS)


def mutated_csv(data: bytes, rng: random.Random) -> bytes:
    """Cells replaced, rows repeated, cut and swapped; the header mostly left alone."""
    if rng.random() < 0.15:
        return mutated_bytes(data, rng)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = 0 if len(lines) == 1 or rng.random() < 0.05 else rng.randrange(1, len(lines))
        kind = rng.randrange(6)
        if kind == 0 and len(lines) < 200:
            lines.insert(at, lines[at])
        elif kind == 1 and len(lines) > 2:
            del lines[at]
        else:
            lines[at] = _mutated_row(lines[at], rng)
    return b"\n".join(lines)


def _mutated_row(line: bytes, rng: random.Random) -> bytes:
    # A quoted cell of numbers is the published form: the numbers in it are places of their own.
    cells = line.split(b",")
    at = rng.randrange(len(cells))
    match rng.randrange(6):
        case 0 | 1 | 2:
            quotes = cells[at].startswith(b'"'), cells[at].endswith(b'"')
            text = nasty_text(rng).encode("utf-8", "surrogateescape")
            cells[at] = b'"' * quotes[0] + text + b'"' * quotes[1]
        case 3:
            cells[at] = mutated_bytes(cells[at], rng)
        case 4:
            other = rng.randrange(len(cells))
            cells[at], cells[other] = cells[other], cells[at]
        case 5:
            cells[at:at] = [cells[at]] * rng.choice((1, 2, 40))
    return b",".join(cells)


_NASTY_VALUES = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 10**30, -(10**400), 2**31, 2**53 + 1, 2**63, 2**64, "", "x",
    "\ud800", "1", [], [[]], {}, [None], {"": 0}, [1, 2, 3, 4], [0, 0, 1e300, 1e300], [4, 3, 2, 1],
)  # fmt: skip
_MOST_JSON_BYTES = 16_384
_NASTY_RAW = (b"1e999", b"-1e999", b"NaN", b"Infinity", b'"\\ud800"', b"1" * 4400, b"[" * 3000 + b"]" * 3000, b"{}")


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """Values replaced, keys dropped and renamed, lists repeated, nesting beyond reason."""
    # What has grown is not taken apart any more: a list repeated in a list repeated takes no end.
    if len(data) > _MOST_JSON_BYTES or rng.random() < 0.1:
        return mutated_bytes(data, rng)
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutated_bytes(data, rng)
    holder = [tree]
    for _ in range(rng.choice((1, 1, 2))):
        _change_a_value(holder, rng)
    try:
        text = json.dumps(holder[0]).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return mutated_bytes(data, rng)
    return text.replace(b'"<raw>"', rng.choice(_NASTY_RAW))


def _change_a_value(holder: list, rng: random.Random) -> None:
    places = []
    waiting = [(holder, 0)]
    while waiting:
        owner, key = waiting.pop()
        places.append((owner, key))
        value = owner[key]
        if isinstance(value, dict):
            waiting += [(value, name) for name in value]
        elif isinstance(value, list):
            waiting += [(value, number) for number in range(len(value))]
    owner, key = places[rng.randrange(len(places))]
    match rng.randrange(8):
        case 0 | 1 | 2:
            owner[key] = copy.deepcopy(rng.choice(_NASTY_VALUES))
        case 3:
            owner[key] = "<raw>"
        case 4 if owner is not holder:
            del owner[key]
        case 5:
            other_owner, other_key = places[rng.randrange(len(places))]
            owner[key] = json.loads(json.dumps(other_owner[other_key]))
        case 6 if isinstance(owner[key], list):
            owner[key] = owner[key] * rng.choice((2, 3, 20))
        case _:
            if isinstance(owner, dict):
                owner[nasty_text(rng)] = owner.pop(key)
            else:
                owner[key] = [owner[key]]


def mutated_xml(data: bytes, rng: random.Random) -> bytes:
    """Attribute values replaced; elements repeated, removed, renamed and nested."""
    if rng.random() < 0.2:
        return mutated_bytes(data, rng)
    match rng.randrange(5):
        case 0 | 1 | 2:
            quotes = [place for place, byte in enumerate(data) if byte == 0x22]
            if len(quotes) < 2:
                return mutated_bytes(data, rng)
            first = rng.randrange(0, len(quotes) - 1, 1) & ~1
            text = nasty_text(rng).replace("<", "").replace("&", "").replace('"', "").replace("\x00", "")
            value = text.encode("utf-8", "surrogateescape") * rng.choice((1, 1, 1, 30))
            return data[: quotes[first] + 1] + value + data[quotes[first + 1] :]
        case 3:
            return _with_element(data, rng, rng.choice((0, 2, 2, 30)))
        case _:
            start, end = _element(data, rng)
            tag = rng.choice((b"a", b"Calculation", b"ImageAnnotation", b"value"))
            depth = rng.choice((1, 3, 150, 250))
            return data[:start] + b"<%s>" % tag * depth + data[start:end] + b"</%s>" % tag * depth + data[end:]


def _element(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Where some element starts and ends; nothing where the text holds none."""
    starts = [at for at in range(len(data) - 1) if data[at] == 0x3C and data[at + 1 : at + 2].isalpha()]
    if not starts:
        return 0, 0
    start = rng.choice(starts)
    name = data[start + 1 : start + 80].replace(b"/", b" ").replace(b">", b" ").split(b" ")[0].split(b"\n")[0]
    own_end = data.find(b">", start)
    if data[own_end - 1 : own_end] == b"/":
        return start, own_end + 1
    end = data.find(b"</%s>" % name, start)
    return (start, end + len(name) + 3) if end >= 0 else (start, start)


def _with_element(data: bytes, rng: random.Random, times: int) -> bytes:
    start, end = _element(data, rng)
    return data[:start] + data[start:end] * times + data[end:]


def joined(*parts: bytes) -> bytes:
    """Several files as one input."""
    return _SEPARATOR.join(parts)


def parts_of(data: bytes, count: int) -> list[bytes]:
    """The files of an input; missing ones are empty."""
    parts = data.split(_SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))


def mutated_part(*mutators: Mutator) -> Mutator:
    """Changes one of several joined files, each in its own way."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        parts = parts_of(data, len(mutators))
        at = rng.randrange(len(mutators))
        parts[at] = mutators[at](parts[at], rng)
        return joined(*parts)

    return mutate


def mutated_toml(data: bytes, rng: random.Random) -> bytes:
    """Values replaced, lines repeated, removed and moved between tables."""
    if rng.random() < 0.15:
        return mutated_bytes(data, rng)
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    name, equals, value = lines[at].partition(b"=")
    match rng.randrange(5):
        case 0 | 1 | 2:
            text = nasty_text(rng).encode("utf-8", "surrogateescape")
            made = rng.choice(
                (text, b'"' + text + b'"', b"[" + text + b"]", b"[" * 2000 + b"]" * 2000, b"{a=1}", value)
            )
            lines[at] = name + (equals or b"=") + made
        case 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case _:
            del lines[at]
    return b"\n".join(lines)
