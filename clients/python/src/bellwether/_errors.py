"""What goes wrong."""

from __future__ import annotations


class BellwetherError(Exception):
    """The server refused a request. ``status`` is that of HTTP, the message the server's own."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServerUnavailable(BellwetherError):
    """The server cannot be reached, or cannot answer now (429, 503, 504). Trying again may work."""


class InvalidRequest(BellwetherError):
    """Something in the request is wrong (400, 413, 415, 422); the message names the field."""


class Unauthorized(BellwetherError):
    """The server wants an API key, and got none or one that is not valid (401)."""


class Forbidden(BellwetherError):
    """The API key is valid and lacks the scope that the message names (403)."""


class NotFound(BellwetherError):
    """No such customer, model, version or view (404)."""


class Conflict(BellwetherError):
    """Not possible as things are now (409): the id of an outcome was used, a version has another role."""


class ModelRefused(InvalidRequest):
    """The server does not serve this version: it does not load, or does not reproduce its golden rows."""


class ConversionError(Exception):
    """An estimator has no ONNX form, or one that does not say what the estimator says.

    Raised before anything is sent.
    """


_BY_STATUS: dict[int, type[BellwetherError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: ServerUnavailable,
    503: ServerUnavailable,
    504: ServerUnavailable,
}


def error_of(status: int, message: str) -> BellwetherError:
    """The exception for a refusal."""
    return _BY_STATUS.get(status, BellwetherError)(message, status)
