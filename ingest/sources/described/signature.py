"""Sign and verify by a description: bytes only, in constant time, compiled once."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs

from ingest import strict_json
from ingest.errors import InvalidSignature
from ingest.sources.base import Headers, WebhookRequest
from ingest.sources.bodies import lookup
from ingest.sources.described import keys, template
from ingest.sources.described.description import Description, Time, Verify
from ingest.sources.signatures import MAX_UNVERIFIED_BYTES

_MAX_ITEMS = 64
_MOST_PUBLIC_SIGNATURES = 4
"""A sender whose key changes signs with two."""
_MAX_PARAMETERS = 100
_TIME_FORM = re.compile(rb"[0-9]{1,15}")

Fields = Mapping[bytes, Sequence[bytes]]
"""The items of a signature header by their names."""


def only(headers: Headers, names: Sequence[bytes], what: str) -> bytes:
    """Return the value of the first of `names` that is there.

    Raises:
        InvalidSignature: none is there, or it is there twice.
    """
    for wanted in names:
        value: bytes | None = None
        for name, candidate in headers:
            if name == wanted:
                if value is not None:
                    raise InvalidSignature(
                        f"The {what} header is given twice.", reason=f"{what}_repeated"
                    )
                value = candidate
        if value is not None:
            return value
    raise InvalidSignature(f"The {what} header is missing.", reason=f"{what}_missing")


class Verifier:
    """Verifies requests by a description, with keys."""

    def __init__(self, description: Description, secrets: Sequence[str], past_s: int) -> None:
        """Compile a description.

        Args:
            description: of the sender.
            secrets: newest first.
            past_s: how old a request may be, in seconds.

        Raises:
            ValueError: a secret is not encoded as the description says.
        """
        verify = self._verify = description.verify
        self._time, self._past_s = description.time, past_s
        self.names = tuple(encoded_names(verify.header or ""))
        self._url = (description.url or "").encode()
        self._keys, self._public_keys = keys.split(secrets, verify)
        self._form = re.compile(re.escape(verify.prefix.encode()) + _digest_form(verify))
        self._public_form, self._public_field = self._form, verify.field.encode()
        if verify.public_key_field:
            self._public_form = re.compile(_encoded_form(keys.SIGNATURE_BYTES, verify.encoding))
            self._public_field = verify.public_key_field.encode()
        self._parts = [self._getter(part) for part in template.parse(verify.signed)]
        self._is_body = verify.signed == "{body}"
        self._hash = verify.scheme.removeprefix("hmac-")
        self._time_names = encoded_names(self._time.header or "") if self._time else ()
        self.stamps = frozenset((*self.names, *self._time_names))
        """The headers that are another with each signature."""
        self._separator, self._field = verify.separator.encode(), verify.field.encode()
        self._field_separator = verify.field_separator.encode()
        self._is_hex = verify.encoding == "hex"
        self.verify = self._choose()

    def _choose(self) -> Callable[[WebhookRequest, int], str]:
        if self._verify.scheme == "none":
            return lambda _request, _now: "unsigned"
        return self._by_signature if self._verify.is_signature else self._by_token

    def digest(self, key: bytes, headers: Headers, body: bytes, fields: Fields) -> bytes:
        """Return the HMAC of a request."""
        return hmac.digest(key, self._signed(headers, body, fields), self._hash)

    def _signed(self, headers: Headers, body: bytes, fields: Fields) -> bytes:
        if self._is_body:
            return body
        return b"".join([part(headers, body, fields) for part in self._parts])

    def encoded(self, digest: bytes) -> str:
        """Return a digest as the header spells it."""
        if self._verify.encoding == "hex":
            return digest.hex()
        if self._verify.encoding == "base64":
            return base64.b64encode(digest).decode()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def first_key(self) -> bytes:
        """Return the key to sign with."""
        return self._keys[0][1]

    def _by_token(self, request: WebhookRequest, _now: int) -> str:
        token = self._token(request)
        matched = None
        for name, key in self._keys:  # every key is tried
            if hmac.compare_digest(token, key):
                matched = name
        if matched is None:
            raise InvalidSignature("The token does not match.", reason="signature_mismatch")
        return matched

    def _token(self, request: WebhookRequest) -> bytes:
        if self._verify.header is not None:
            return self._without_prefix(only(request.headers, self.names, "signature"))
        value: object = None
        if self._verify.query is not None:
            values = query_of(request.target).get(self._verify.query, [])
            value = values[0] if len(values) == 1 else None
        elif len(request.body) <= MAX_UNVERIFIED_BYTES:
            try:
                value = lookup(strict_json.loads(request.body), self._verify.path or "")
            except strict_json.InvalidJson:
                value = None
        if not isinstance(value, str) or not value:
            raise InvalidSignature("The token is missing.", reason="signature_missing")
        return value.encode("utf-8", "surrogatepass")

    def _without_prefix(self, value: bytes) -> bytes:
        prefix = self._verify.prefix.encode()
        if not value.startswith(prefix):
            raise InvalidSignature("The token is malformed.", reason="signature_malformed")
        return value.removeprefix(prefix)

    def _by_signature(self, request: WebhookRequest, now: int) -> str:
        headers, body = request.headers, request.body
        value = only(headers, self.names, "signature")
        fields: Fields = {}
        if self._separator:
            fields = self._items(value)
            candidates = self._forms(fields.get(self._field, ()))
        else:
            candidates = self._forms((value,))
        signatures = self._public_signatures(value, fields) if self._public_keys else []
        if not candidates and not signatures:
            raise InvalidSignature(
                "The signature header is malformed.", reason="signature_malformed"
            )
        time = self._time_of(headers, fields)
        matched = None
        for name, key in self._keys:  # every key is tried, so the time does not tell which matched
            expected = self.digest(key, headers, body, fields)
            for candidate in candidates:
                if hmac.compare_digest(candidate, expected):
                    matched = name
        if signatures and matched is None:
            signed = self._signed(headers, body, fields)
            matched = keys.matching(self._public_keys, signatures, signed)
        if matched is None:
            raise InvalidSignature("The signature does not match.", reason="signature_mismatch")
        if self._time is not None:
            self._check_time(self._time, time, body, now)
        return matched

    def _items(self, value: bytes) -> Fields:
        items: dict[bytes, list[bytes]] = {}
        for item in value.split(self._separator)[:_MAX_ITEMS]:
            name, _, text = item.strip().partition(self._field_separator)
            items.setdefault(name, []).append(text)
        return items

    def _public_signatures(self, value: bytes, fields: Fields) -> list[bytes]:
        """Return the Ed25519 signatures in the header, the first few: to check one reads the whole
        body, whoever sent it."""
        values = fields.get(self._public_field, ()) if self._separator else (value,)
        return self._matched(self._public_form, values)[:_MOST_PUBLIC_SIGNATURES]

    def _forms(self, values: Sequence[bytes]) -> list[bytes]:
        return self._matched(self._form, values)

    def _matched(self, form: re.Pattern[bytes], values: Sequence[bytes]) -> list[bytes]:
        matches = [form.fullmatch(value) for value in values]
        return [self._decoded(match.group(1)) for match in matches if match is not None]

    def _decoded(self, text: bytes) -> bytes:
        if self._is_hex:
            return bytes.fromhex(text.decode("ascii"))
        standard = text.rstrip(b"=").translate(_BYTES_FROM_URL_SAFE)
        return binascii.a2b_base64(standard + b"=" * (-len(standard) % 4))

    def _time_of(self, headers: Headers, fields: Fields) -> int | None:
        """Return the time of a header or of a field of one; of the body: None."""
        if self._time is None or self._time.path is not None:
            return None
        if self._time.field is not None:
            values = fields.get(self._time.field.encode(), ())
            if len(values) != 1:
                raise InvalidSignature("There is no one timestamp.", reason="timestamp_missing")
            value = values[0]
        else:
            value = only(headers, self._time_names, "timestamp")
        if not _TIME_FORM.fullmatch(value):
            raise InvalidSignature("The timestamp is malformed.", reason="timestamp_malformed")
        return int(value)

    def _check_time(self, time: Time, signed_at: int | None, body: bytes, now: int) -> None:
        if time.path is not None:
            signed_at = _time_in(body, time.path)
        if signed_at is None:
            raise InvalidSignature("The timestamp is missing.", reason="timestamp_missing")
        seconds = signed_at if time.unit == "s" else signed_at / 1000
        is_early = time.future_s != "any" and seconds - now > time.future_s
        if is_early or now - seconds > self._past_s:
            raise InvalidSignature(
                "The timestamp is too far away from now.", reason="timestamp_outside_window"
            )

    def _getter(self, part: template.Part) -> Callable[[Headers, bytes, Fields], bytes]:
        if part.kind == "literal":
            text = part.names[0].encode()
            return lambda _headers, _body, _fields: text
        if part.kind == "body":
            return lambda _headers, body, _fields: body
        if part.kind == "url":
            return lambda _headers, _body, _fields: self._url
        names = encoded_names("|".join(part.names))
        if part.kind == "header":
            return lambda headers, _body, _fields: only(headers, names, "signed")
        return lambda _headers, _body, fields: _one(fields.get(names[0], ()))


def query_of(target: str) -> Mapping[str, Sequence[str]]:
    """Return the parameters of a request's query; none, if there are more than 100."""
    try:
        return parse_qs(target.partition("?")[2], max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return {}


def encoded_names(names: str) -> tuple[bytes, ...]:
    """Return the names of `a|b` as headers have them."""
    return tuple(name.encode() for name in names.split("|") if name)


def _one(values: Sequence[bytes]) -> bytes:
    if len(values) != 1:
        raise InvalidSignature("A signed field is missing.", reason="signed_missing")
    return values[0]


def _time_in(body: bytes, path: str) -> int | None:
    try:
        value = lookup(strict_json.loads(body), path)
    except strict_json.InvalidJson:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _digest_form(verify: Verify) -> bytes:
    if not verify.is_signature:
        return b"(.*)"
    size = keys.SIGNATURE_BYTES
    if verify.is_hmac:
        size = hashlib.new(verify.scheme.removeprefix("hmac-")).digest_size
    return _encoded_form(size, verify.encoding)


def _encoded_form(size: int, encoding: str) -> bytes:
    """Return the pattern of so many bytes, encoded."""
    if encoding == "hex":
        return b"([0-9a-fA-F]{%d})" % (2 * size)
    alphabet = b"A-Za-z0-9+/" if encoding == "base64" else b"A-Za-z0-9_-"
    return b"([%b]{%d}={0,%d})" % (alphabet, -(-size * 4 // 3), -size % 3)


_BYTES_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
