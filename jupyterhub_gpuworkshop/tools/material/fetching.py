"""Fetches one file over HTTP, and goes on where a broken download has ended.

Owns what is asked of a server, and what its answers mean. What came so far stays in a
file beside a note of which version of the file it is of: a server that has another one
by now sends all of it.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import requests
import urllib3

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.core.errors import MaterialError

from .names import size_words
from .sources import Wanted, file_name
from .writing import free_bytes, write_file

CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0
_CHUNK_BYTES = 256 * 1024
_MOST_REDIRECTS = 5
_TRIES = 5
_FIRST_WAIT_SECONDS = 1.0
_OK, _PART, _UNCHANGED, _NO_SUCH_RANGE = 200, 206, 304, 416
_AGAIN = (408, 429, 500, 502, 503, 504)
_SAYS = {
    401: "it wants a password, or another one",
    403: "it may not be read",
    404: "there is no such file",
    410: "it is not there any more",
    429: "it was asked too often",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """Which version of a file it is, as its server says; empty where it does not."""

    etag: str = ""
    modified: str = ""

    @property
    def for_range(self) -> str:
        """What tells that the rest is of the same file; a weak ETag does not."""
        return self.etag if self.etag and not self.etag.startswith("W/") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is here whole.

    Attributes:
        path: where.
        name: what it is called.
        validators: of it.
    """

    path: Path
    name: str
    validators: Validators


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Who hears how far a download is.

    Attributes:
        total: called with the size, where it is known, and 0 where it is not.
        done: called with how much is here.
    """

    total: Callable[[int], None]
    done: Callable[[int], None]


class _Broken(Exception):
    """The connection broke, or the server is busy: another try may go well."""


@dataclass(slots=True)
class Download:
    """One file, fetched in as many pieces as it takes.

    Attributes:
        wanted: what is fetched.
        folder: where it is put; only we may write there.
        largest_bytes: it may not be larger.
        telling: who hears of it.
        wait: sleeps so many seconds before another try.
    """

    wanted: Wanted
    folder: Path
    largest_bytes: int
    telling: Telling
    wait: Callable[[float], None] = time.sleep

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.folder / f"{self.wanted.key}.part"

    @property
    def note(self) -> Path:
        """Which version that is of."""
        return self.folder / f"{self.wanted.key}.note"

    def fetch(self, known: Validators | None = None) -> Fetched | None:
        """Fetch the file; None where it is still the one that is known.

        Args:
            known: the version that is installed, if any.

        Raises:
            MaterialError: it cannot be had. What came so far stays, where the rest may
                be fetched another time.
            OSError: it cannot be written.
        """
        tries, wait = 0, _FIRST_WAIT_SECONDS
        while True:
            before = self._size()
            try:
                with requests.Session() as session:
                    session.max_redirects = _MOST_REDIRECTS
                    return self._once(session, known)
            except (
                _Broken,
                requests.RequestException,
                urllib3.exceptions.HTTPError,
            ) as e:
                reason = _reason(e)
                if not _is_worth_another(e):
                    raise self._error(reason) from None
            tries = 1 if self._size() > before else tries + 1
            if tries >= _TRIES:
                raise self._error(
                    f"{reason}. It was tried {_TRIES} times; run this again, and it "
                    "goes on from there"
                ) from None
            if tries == 1:
                wait = _FIRST_WAIT_SECONDS
            self.wait(wait)
            wait *= 2

    def forget(self) -> None:
        """Remove what has come so far."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _once(
        self, session: requests.Session, known: Validators | None
    ) -> Fetched | None:
        have, noted = self._so_far()
        headers = {
            # As it is: what is compressed on the way cannot be resumed or verified.
            "Accept-Encoding": "identity",
            "User-Agent": f"gpuworkshop/{__version__}",
        }
        if have:
            headers["Range"] = f"bytes={have}-"
            headers["If-Range"] = noted.for_range or noted.modified
        elif known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        elif known is not None and known.modified:
            headers["If-Modified-Since"] = known.modified
        answer = session.get(
            self.wanted.given.source,
            headers=headers,
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
        with answer:
            self._check_way(answer)
            if answer.status_code == _UNCHANGED and not have:
                return None
            if answer.status_code == _NO_SUCH_RANGE and have:
                self.forget()
                raise _Broken("the file has become shorter")
            return self._take(answer, have)

    def _take(self, answer: requests.Response, have: int) -> Fetched:
        if answer.status_code in _AGAIN:
            raise _Broken(_status(answer.status_code))
        if answer.status_code == _PART and have:
            start, total = _range_of(answer)
            if start != have:
                self.forget()
                raise _Broken("the server sent another piece than it was asked for")
        elif answer.status_code == _OK:
            self.forget()
            have, total = 0, int(_header(answer, "Content-Length") or 0)
        else:
            raise self._error(_status(answer.status_code))
        validators = Validators(
            etag=_header(answer, "ETag"), modified=_header(answer, "Last-Modified")
        )
        if not have:
            self._write_note(validators)
        self._check_room(have, total)
        self.telling.total(total)
        self._write(answer, have, total)
        return Fetched(path=self.part, name=_name_of(answer), validators=validators)

    def _write(self, answer: requests.Response, have: int, total: int) -> None:
        with self.part.open("ab") as file:
            self.telling.done(have)
            # Raw: a server that compresses all the same would change what is verified.
            for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                have += len(chunk)
                if have > self.largest_bytes:
                    self.forget()
                    raise self._too_large()
                file.write(chunk)
                self.telling.done(have)
            file.flush()
            os.fsync(file.fileno())
        if total and have != total:
            raise _Broken(f"the connection broke after {size_words(have)}")

    def _check_way(self, answer: requests.Response) -> None:
        way = [step.url for step in (*answer.history, answer)]
        secure = [url.startswith("https:") for url in way]
        if any(before and not after for before, after in pairwise(secure)):
            raise self._error(
                "it leads from https to http, where anybody may change it"
            )

    def _check_room(self, have: int, total: int) -> None:
        if total > self.largest_bytes:
            self.forget()
            raise self._too_large()
        free = free_bytes(self.folder)
        if total - have > free:
            raise self._error(
                f"{size_words(total - have)} are to be fetched, and "
                f"{size_words(free)} are free on the disk of {self.folder.parent}. "
                "Make room there, or name another material.folder"
            )

    def _so_far(self) -> tuple[int, Validators]:
        try:
            noted = json.loads(self.note.read_text())
            validators = Validators(etag=noted["etag"], modified=noted["modified"])
            have = self.part.stat().st_size
            if noted["identity"] != self.wanted.identity:
                raise ValueError("of something else")
            if not (validators.for_range or validators.modified):
                raise ValueError("it cannot be told whether it is the same file")
        except (OSError, ValueError, KeyError, TypeError):
            self.forget()
            return 0, Validators()
        return have, validators

    def _write_note(self, validators: Validators) -> None:
        noted: dict[str, Any] = {
            "identity": self.wanted.identity,
            "etag": validators.etag,
            "modified": validators.modified,
        }
        write_file(self.note, json.dumps(noted), mode=0o600)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _too_large(self) -> MaterialError:
        return self._error(
            f"it is larger than {size_words(self.largest_bytes)}, which "
            "material.largest allows"
        )

    def _error(self, why: str) -> MaterialError:
        return MaterialError(f"{self.wanted.shown} cannot be fetched: {why}.")


def _range_of(answer: requests.Response) -> tuple[int, int]:
    """Return where a piece begins, and the size of the whole file; 0 if unknown."""
    said = _header(answer, "Content-Range").removeprefix("bytes ")
    span, _, total = said.partition("/")
    start = span.partition("-")[0]
    if not start.isdecimal():
        raise _Broken("the server sent a piece without saying which")
    return int(start), int(total) if total.isdecimal() else 0


def _header(answer: requests.Response, name: str) -> str:
    value = str(answer.headers.get(name) or "")
    return value if value.isascii() and value.isprintable() else ""


def _name_of(answer: requests.Response) -> str:
    """Return what a file is called: what its server says, else its address."""
    message = Message()
    message["Content-Disposition"] = _header(answer, "Content-Disposition") or "inline"
    said = PurePosixPath((message.get_filename() or "").replace("\\", "/")).name
    first = answer.history[0].url if answer.history else answer.url
    return said or file_name(first) or file_name(answer.url) or "file"


def _is_worth_another(error: Exception) -> bool:
    final = (
        requests.TooManyRedirects,
        requests.exceptions.SSLError,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
    )
    return not isinstance(error, final)


def _reason(error: Exception) -> str:
    """Return why it broke; never the library's words, which hold the address."""
    if isinstance(error, _Broken):
        return str(error)
    for kind, words in (
        (requests.TooManyRedirects, f"it leads on more than {_MOST_REDIRECTS} times"),
        (
            requests.exceptions.SSLError,
            "its certificate is not good, or it speaks no TLS. Where it is of your own "
            "authority, name that in REQUESTS_CA_BUNDLE",
        ),
        (requests.exceptions.ProxyError, "the proxy does not let it through"),
        (requests.exceptions.InvalidSchema, "it leads to what is not http or https"),
        (requests.exceptions.InvalidURL, "it is no address that can be read"),
        (requests.Timeout, "the server does not answer in time"),
        (requests.ConnectionError, "the server cannot be reached"),
        (urllib3.exceptions.TimeoutError, "the server has stopped sending"),
    ):
        if isinstance(error, kind):
            return words
    return "the connection broke"


def _status(code: int) -> str:
    return _SAYS.get(code, f"the server answers with status {code}")
