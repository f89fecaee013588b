"""The console's cookies: for no script, no other site, and over TLS for this host alone."""

SESSION = "ingest_session"


def full_name(name: str, *, secure: bool) -> str:
    """The name in the header. Browsers let no other host, and nothing without TLS, set one with
    the prefix."""
    return f"__Host-{name}" if secure else name


def set_cookie(name: str, value: str, *, secure: bool, max_age_s: int | None = None) -> str:
    """The `Set-Cookie` header; without `max_age_s` the cookie goes with the browser."""
    parts = [f"{full_name(name, secure=secure)}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    if secure:
        parts.append("Secure")
    if max_age_s is not None:
        parts.append(f"Max-Age={max_age_s}")
    return "; ".join(parts)
