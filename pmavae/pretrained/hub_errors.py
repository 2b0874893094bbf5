"""What went wrong with the Hub, in one sentence with the remedy.

The client's errors come from several libraries, and which of them depends on its version: they are told
apart by status, by the names of their classes and by errno.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_LOG_IN = "set HF_TOKEN or run hf auth login"


@dataclass(frozen=True)
class Trouble:
    """Why something was not done."""

    sentence: str
    passing: bool = False  # of the network or the server, not of what was asked for


@dataclass(frozen=True)
class Attempt:
    """What was tried, as a sentence about its failure needs it."""

    subject: str  # "org/name@main:model.safetensors"
    done: str  # "fetched", "pushed"
    repo: str
    revision: str
    file: str
    endpoint: str
    cache: str
    token: str | None


def explain(error: BaseException, attempt: Attempt) -> Trouble:
    """One sentence for an error of the Hub's client; it never holds the token."""
    chain = list(_chain(error))
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    start = f"{attempt.subject} was not {attempt.done}: "
    if "FileMetadataError" in names:
        return Trouble(
            f"{start}{attempt.endpoint} answers, but not as the Hub does; check HF_ENDPOINT and the proxy"
        )
    for trouble in (
        _of_answer(chain, names, start, attempt),
        _of_network(chain, names, start, attempt),
        _of_disk(chain, start, attempt),
    ):
        if trouble is not None:
            return trouble
    told = " ".join(str(error).split())
    if attempt.token:
        told = told.replace(attempt.token, "…")
    # Addresses may be signed, or have a password in them.
    told = re.sub(r"(?<=//)[^/@\s]+@|(?<=\?)\S+", "…", told)[:200]
    return Trouble(f"{start}{type(error).__name__}: {told or 'no reason given'}; try again")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of_answer(chain: list[BaseException], names: set[str], start: str, attempt: Attempt) -> Trouble | None:
    """What the server said by its status."""
    response = next((r for link in chain if (r := getattr(link, "response", None)) is not None), None)
    if response is None:
        return None
    status, repo = int(response.status_code), attempt.repo
    if "GatedRepoError" in names:
        return Trouble(
            f"{start}{repo} is gated; accept its terms at {attempt.endpoint}/{repo}, "
            f"then {_LOG_IN} with that account"
        )
    if "RevisionNotFoundError" in names:
        return Trouble(
            f"{start}{repo} has no revision {attempt.revision}; name a branch, tag or commit of it"
        )
    if "EntryNotFoundError" in names:
        return Trouble(
            f"{start}{repo} has no file {attempt.file} at {attempt.revision}; "
            f"name one that it has as {repo}:FILE.safetensors"
        )
    invalid = "Invalid credentials" in response.headers.get("X-Error-Message", "")
    if status == 401 and attempt.token and invalid:
        return Trouble(
            f"{start}{attempt.endpoint} refuses the token; {_LOG_IN} with a valid one, or unset it"
        )
    if status in (401, 404):
        if attempt.token:
            return Trouble(
                f"{start}there is no repository {repo} that the token may see; check its name and the token"
            )
        return Trouble(f"{start}there is no public repository {repo}; check its name, or {_LOG_IN}")
    if status == 403:
        right = "write to" if attempt.done == "pushed" else "read"
        if not attempt.token:
            return Trouble(f"{start}{repo} is not for everyone; {_LOG_IN} with a token that may {right} it")
        return Trouble(f"{start}the token may not {right} {repo}; {_LOG_IN} with one that may")
    if status == 429:
        seconds = response.headers.get("Retry-After", "")
        wait = f"try again in {seconds} seconds" if seconds.isdigit() else "try again later"
        better = "" if attempt.token else f", or {_LOG_IN} for a higher limit"
        return Trouble(f"{start}{attempt.endpoint} has had too many requests; {wait}{better}", passing=True)
    if status >= 500:
        return Trouble(
            f"{start}{attempt.endpoint} is out of order (status {status}); try again later", passing=True
        )
    return Trouble(f"{start}{attempt.endpoint} refuses the request (status {status}); check the names in it")


def _of_disk(chain: list[BaseException], start: str, attempt: Attempt) -> Trouble | None:
    for link in chain:
        number = link.errno if isinstance(link, OSError) else None
        if number in _NO_ROOM:
            return Trouble(
                f"{start}there is no room for it in {attempt.cache}; "
                "make some, or set HF_HOME to a folder on another disk"
            )
        if number in _NOT_WRITABLE:
            return Trouble(
                f"{start}{attempt.cache} cannot be written ({os.strerror(number or 0)}); "
                "set HF_HOME to a folder that can"
            )
    return None


def _of_network(chain: list[BaseException], names: set[str], start: str, attempt: Attempt) -> Trouble | None:
    if any("Timeout" in name for name in names):
        return Trouble(
            f"{start}{attempt.endpoint} does not answer in time; try again, "
            "or be more patient with HF_HUB_DOWNLOAD_TIMEOUT=60 and HF_HUB_ETAG_TIMEOUT=60",
            passing=True,
        )
    if "ProxyError" in names:
        return Trouble(f"{start}the proxy refuses the connection; check HTTPS_PROXY", passing=True)
    told = " ".join(str(link) for link in chain)
    if "certificate verify failed" in told.lower():
        return Trouble(
            f"{start}the certificate of {attempt.endpoint} is not trusted; "
            "name the one of your network in SSL_CERT_FILE"
        )
    if "Consistency check failed" in told or names & {
        "RemoteProtocolError",
        "ReadError",
        "ChunkedEncodingError",
    }:
        return Trouble(f"{start}the connection broke off before all of it was here; try again", passing=True)
    if names & {"ConnectError", "ConnectionError", "NetworkError", "gaierror"}:
        reason = next(
            (link.strerror for link in reversed(chain) if isinstance(link, OSError) and link.strerror), ""
        )
        return Trouble(
            f"{start}{attempt.endpoint} cannot be reached{f' ({reason})' if reason else ''}; "
            "check the network, or copy the file here and give its path",
            passing=True,
        )
    return None
