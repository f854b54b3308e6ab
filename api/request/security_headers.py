"""The headers of every answer, in every dialect."""

NOT_CACHED = (b"cache-control", b"no-store, max-age=0")
"""Nothing may be cached, but for what a dialect says otherwise of."""

# Nothing is a page (OWASP's list for APIs), and nothing names the server: an empty `server` header stops granian from
# adding its own.
ON_ALL = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"server", b""),
)
