"""What a search can ask for, as numbers: a hash of service, key and value is a term."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability.embedded import tags

_CACHED_BYTES = 256


def of_span(service: str, span: Span, kind: int) -> list[int]:
    """Give the terms of a span's tags and of its events' fields."""
    found = _attribute_terms(service, span.attributes)
    found.extend([_tag_term(service, tag) for tag in tags.beside_attributes(span, kind)])
    for event in span.events:
        found.append(term("tag", service, tags.EVENT_NAME, event.name))
        found.extend(_attribute_terms(service, event.attributes))
    return found


def _attribute_terms(service: str, attributes: Iterable[KeyValue]) -> list[int]:
    # Nearly all attributes have been seen before, and their bytes are had sooner than their values.
    return [
        _known_term(service, data) if len(data) <= _CACHED_BYTES else _attribute_term(service, data)
        for data in map(KeyValue.SerializeToString, attributes)
    ]


def _attribute_term(service: str, data: bytes) -> int:
    (tag,) = tags.of_attributes([KeyValue.FromString(data)])
    return _tag_term(service, tag)


_known_term = lru_cache(maxsize=8192)(_attribute_term)


def _tag_term(service: str, tag: tags.Tag) -> int:
    key, kind, value = tag
    text = tags.text(kind, value)
    if len(text) > _CACHED_BYTES:
        return digest(joined("tag", service, key, text))
    return term("tag", service, key, text)


@lru_cache(maxsize=8192)
def term(*parts: str) -> int:
    """Give the term of these texts together."""
    return digest(joined(*parts))


def joined(*parts: str) -> bytes:
    """Give what a term is the hash of: for texts that are too long to remember their term."""
    return "\0".join(parts).encode()


def digest(data: bytes) -> int:
    """Hash to one of SQLite's numbers. With 64 bits, two of a million terms are the same once in 30 million files."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)
