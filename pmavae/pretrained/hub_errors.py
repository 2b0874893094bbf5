"""What went wrong with the Hub, in one sentence with the remedy.

The client's errors come from several libraries, and which of them depends on its version: they are told
apart by status, by the names of their classes and by errno.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_LOG_IN = "set HF_TOKEN or run hf auth login"


@dataclass(frozen=True)
class Attempt:
    """What was tried, as a sentence about its failure needs it."""

    done: str  # "fetched", "pushed"
    repo: str
    revision: str
    file: str
    endpoint: str
    cache: str
    token: str | None


def explain(error: BaseException, attempt: Attempt) -> tuple[str, bool]:
    """The reason of an error of the Hub's client, with the remedy, and whether it will pass.

    It passes where it is of the network or the server, not of what was asked for. It never holds the token.
    """
    chain = list(_chain(error))
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    rows = [
        *_of_answer(chain, names, attempt),
        *_of_network(chain, names, attempt),
        *_of_disk(chain, attempt),
    ]
    for holds, reason, passing in rows:
        if holds:
            return reason, passing
    words = " ".join(str(error).split())
    if attempt.token:
        words = words.replace(attempt.token, "…")
    # Addresses may be signed, or have a password in them.
    words = re.sub(r"(?<=//)[^/@\s]+@|(?<=\?)\S+", "…", words)[:200] or "no reason given"
    return f"{type(error).__name__}: {words}; try again", False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


_Rows = list[tuple[bool, str, bool]]  # whether it is so; what to say, with the remedy; whether it passes


def _of_answer(chain: list[BaseException], names: set[str], attempt: Attempt) -> _Rows:
    """What the server said by its status; the last of these is always so."""
    repo, server, token = attempt.repo, attempt.endpoint, attempt.token
    strange = f"{server} answers, but not as the Hub does; check HF_ENDPOINT and the proxy"
    rows: _Rows = [("FileMetadataError" in names, strange, False)]
    response = next((r for link in chain if (r := getattr(link, "response", None)) is not None), None)
    if response is None:
        return rows
    status = int(response.status_code)
    invalid = "Invalid credentials" in response.headers.get("X-Error-Message", "")
    right = "write to" if attempt.done == "pushed" else "read"
    seconds = response.headers.get("Retry-After", "")
    wait = f"try again in {seconds} seconds" if seconds.isdigit() else "try again later"
    better = "" if token else f", or {_LOG_IN} for a higher limit"
    gated = f"{repo} is gated; accept its terms at {server}/{repo}, then {_LOG_IN} with that account"
    revision = f"{repo} has no revision {attempt.revision}; name a branch, tag or commit of it"
    absent = f"{repo} has no file {attempt.file} at {attempt.revision}; name one that it has"
    refused = f"{server} refuses the token; {_LOG_IN} with a valid one, or unset it"
    unseen = f"there is no repository {repo} that the token may see; check its name and the token"
    none = f"there is no public repository {repo}; check its name, or {_LOG_IN}"
    private = f"{repo} is not for everyone; {_LOG_IN} with a token that may {right} it"
    weak = f"the token may not {right} {repo}; {_LOG_IN} with one that may"
    return [
        *rows,
        ("GatedRepoError" in names, gated, False),
        ("RevisionNotFoundError" in names, revision, False),
        ("EntryNotFoundError" in names, f"{absent} as {repo}:FILE.safetensors", False),
        (status == 401 and bool(token) and invalid, refused, False),
        (status in (401, 404), unseen if token else none, False),
        (status == 403, weak if token else private, False),
        (status == 429, f"{server} has had too many requests; {wait}{better}", True),
        (status >= 500, f"{server} is out of order (status {status}); try again later", True),
        (True, f"{server} refuses the request (status {status}); check the names in it", False),
    ]


def _of_network(chain: list[BaseException], names: set[str], attempt: Attempt) -> _Rows:
    server, words = attempt.endpoint, " ".join(str(link) for link in chain)
    reason = next((x.strerror for x in reversed(chain) if isinstance(x, OSError) and x.strerror), "")
    slow = (
        f"{server} does not answer in time; try again, "
        "or be more patient with HF_HUB_DOWNLOAD_TIMEOUT=60 and HF_HUB_ETAG_TIMEOUT=60"
    )
    proxy = "the proxy refuses the connection; check HTTPS_PROXY"
    untrusted = f"the certificate of {server} is not trusted; name the one of your network in SSL_CERT_FILE"
    broken = "the connection broke off before all of it was here; try again"
    far = (
        f"{server} cannot be reached{f' ({reason})' if reason else ''}; "
        "check the network, or copy the file here and give its path"
    )
    cut = names & {"RemoteProtocolError", "ReadError", "ChunkedEncodingError"}
    return [
        (any("Timeout" in name for name in names), slow, True),
        ("ProxyError" in names, proxy, True),
        ("certificate verify failed" in words.lower(), untrusted, False),
        ("Consistency check failed" in words or bool(cut), broken, True),
        (bool(names & {"ConnectError", "ConnectionError", "NetworkError", "gaierror"}), far, True),
    ]


def _of_disk(chain: list[BaseException], attempt: Attempt) -> _Rows:
    cache = attempt.cache
    full = f"there is no room for it in {cache}; make some, or set HF_HOME to a folder on another disk"
    rows: _Rows = []
    for number in (link.errno for link in chain if isinstance(link, OSError) and link.errno):
        closed = f"{cache} cannot be written ({os.strerror(number)}); set HF_HOME to a folder that can"
        rows += [(number in _NO_ROOM, full, False), (number in _NOT_WRITABLE, closed, False)]
    return rows
