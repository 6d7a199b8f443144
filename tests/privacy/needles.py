"""Every form in which a planted text could stand in a file: encodings, escapes, cases, and digests without a key."""

import base64
import hashlib
import html
import json
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import quote

# Shorter texts stand in random bytes by chance.
SHORTEST = 6
_DIGEST_DIGITS = 16


def needles(texts: Iterable[str]) -> dict[bytes, str]:
    """Lower-cased bytes to look for, and the text that each gives away."""
    found: dict[bytes, str] = {}
    for text in texts:
        for form in _forms(text):
            if len(form) >= SHORTEST:
                found.setdefault(form.lower(), text)
    return found


def _forms(text: str) -> Iterator[bytes]:
    for spelt in sorted({text, text.upper(), text.lower(), *_normal_forms(text)}):
        plain = spelt.encode("utf-8", "surrogateescape")
        yield plain
        yield spelt.encode("utf-16-le", "surrogatepass")
        yield spelt.encode("utf-16-be", "surrogatepass")
        yield from _in_small_alphabets(spelt)
        yield quote(plain).encode()
        yield json.dumps(spelt).strip('"').encode()
        yield ascii(spelt).strip("'\"").encode()
        yield html.escape(spelt).encode("utf-8", "surrogateescape")
    plain = text.encode("utf-8", "surrogateescape")
    yield plain[::-1]
    yield plain.hex().encode()
    yield from _base64_anywhere(plain)
    yield from _dates(text)
    # Whoever can guess an identifier can compute its digest, unless a key is part of it.
    for name in ("md5", "sha1", "sha256"):
        yield hashlib.new(name, plain, usedforsecurity=False).hexdigest()[:_DIGEST_DIGITS].encode()
    yield hashlib.blake2b(plain, digest_size=16).hexdigest()[:_DIGEST_DIGITS].encode()


def _normal_forms(text: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def _in_small_alphabets(text: str) -> Iterator[bytes]:
    for encoding in ("latin-1", "shift_jis", "iso2022_jp", "cp1252"):
        try:
            yield text.encode(encoding)
        except UnicodeEncodeError:
            continue


def _base64_anywhere(plain: bytes) -> Iterator[bytes]:
    """What stays the same of its base64 wherever it starts in what was encoded."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        start = (0, 2, 3)[before]
        whole = (before + len(plain)) // 3 * 4
        yield encoded[start:whole]


def _dates(text: str) -> Iterator[bytes]:
    if len(text) == 8 and text.isascii() and text.isdigit():
        year, month, day = text[:4], text[4:6], text[6:]
        yield from (
            form.encode() for form in (f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}")
        )
