"""What the errors of stores' clients mean, with what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")
MISSING = {"NoSuchBucket", "InvalidBucketName"}
_EXPIRED = {
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"),
    *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "RefreshError"),
}
_WRONG = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "AuthFailure", "401"}
_ABSENT = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}
_REFUSED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "AccessControlException", "403"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "hdfs": "--hdfs_user, or the user or the token of the WebHDFS client",
}
ADVICE = "check the network and the store, then start the same command again"
_FAMILIES = {"s3a": "s3", "gcs": "gs", "webhdfs": "hdfs"}


class StoreError(RuntimeError):
    """What a store refuses, or what it did not do in several tries. The text says what to do.

    It is no OSError: a file that a store does not give is not a damaged file, and no reader may pass over it.
    """


def scheme_of(path: str) -> str | None:
    """Return `s3` of `s3://bucket/name`, None of a local path."""
    found = _SCHEME.match(path)
    return found[1].lower() if found else None


def explain(path: str, error: BaseException) -> StoreError | None:
    """Return the error for the user if a client's error means that the store refuses; None for all other errors."""
    scheme = scheme_of(path) or ""
    bucket = _bucket(path)
    found = set(codes_of(error))
    text = " ".join(str(error).split())[:300]
    if found & MISSING:
        return no_bucket(path)
    credentials = _CREDENTIALS.get(_FAMILIES.get(scheme, scheme), "those of the store's client")
    refuses = isinstance(error, PermissionError) or bool(found & {"400", "401", "403", "RuntimeError"})
    if found & _EXPIRED or (refuses and "expired" in text.lower()):
        return StoreError(
            f"{path}: the credentials for {bucket} have expired ({text}): renew them ({credentials}), then start the same "
            f"command again, which does the rest"
        )
    if found & _ABSENT:
        return StoreError(f"{path}: no credentials for {bucket} ({text}): set {credentials}")
    if found & _WRONG:
        return StoreError(f"{path}: {bucket} does not accept the credentials ({text}): check {credentials}")
    if found & _REFUSED or isinstance(error, PermissionError) or text.startswith("Forbidden"):
        return StoreError(
            f"{path}: {bucket} refuses access ({text}): give these credentials the permission to list, read and, for "
            f"outputs, write and delete, or use others: {credentials}"
        )
    return None


def no_bucket(path: str) -> StoreError:
    """Return the error for a path in a bucket that does not exist."""
    return StoreError(
        f"{path}: the bucket {_bucket(path)} does not exist: create it, or correct its name or the address of the store"
    )


def _bucket(path: str) -> str:
    scheme, _, rest = path.partition("://")
    if _FAMILIES.get(scheme, scheme) == "hdfs":
        return "HDFS"
    return f"{scheme}://{rest.partition('/')[0]}"


def codes_of(error: BaseException | None) -> Iterator[str]:
    """Yield the names of an error and of its causes, and the codes in the store's answers."""
    seen = 0
    while error is not None and seen < 8:
        yield type(error).__name__
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            yield str(response.get("Error", {}).get("Code", ""))
        status = (
            getattr(response, "status_code", None) or getattr(error, "code", None) or getattr(error, "status", None)
        )
        if status is not None:
            yield str(status)
        error, seen = error.__cause__ or error.__context__, seen + 1


@contextmanager
def refusals(path: str) -> Iterator[None]:
    """Let an error that means a refusal be a StoreError."""
    try:
        yield
    except Exception as error:
        if found := explain(path, error):
            raise found from error
        raise


def in_words(error: Exception) -> str:
    """Return the kind and the text of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
