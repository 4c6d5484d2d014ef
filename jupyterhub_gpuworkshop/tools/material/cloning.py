"""Fetches one commit of a git repository, with the git program.

Owns how git is called: nothing of this machine's or the repository's configuration, no
hooks, no questions, no protocols that run commands, one commit, no submodules. What
comes is read as a tar archive, like any other; nothing is ever checked out.
"""

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlunsplit

from jupyterhub_gpuworkshop.core.errors import MaterialError

from .names import printable, size_words
from .sources import Wanted, split
from .tree import Tree
from .unpacking import unpack_tar

LOOK_SECONDS = 120.0
FETCH_SECONDS = 6 * 3600.0
_WATCH_SECONDS = 1.0
_SETTINGS = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0"),
    *("protocol.allow=never", "protocol.http.allow=always"),
    *("protocol.https.allow=always", "protocol.ssh.allow=always"),
    *("protocol.git.allow=always", "protocol.file.allow=always"),
    *("credential.helper=", "http.followRedirects=initial"),
    *("http.lowSpeedLimit=100", "http.lowSpeedTime=60"),
    *("fetch.recurseSubmodules=false", "submodule.recurse=false"),
    *("transfer.bundleURI=false", "fetch.fsckObjects=true"),
)


class Repository:
    """One commit of a repository.

    Args:
        wanted: where it is, and which one.
        folder: where it is fetched to; empty or not there.
        largest_bytes: it may not take more on disk.

    Raises:
        MaterialError: there is no git program here.
    """

    def __init__(self, wanted: Wanted, folder: Path, largest_bytes: int) -> None:
        found = shutil.which("git")
        if found is None:
            raise MaterialError(
                "The git program is not installed, and this comes from a repository. "
                "Install it: sudo apt install git."
            )
        self._git = found
        self._wanted = wanted
        self._folder = folder
        self._largest_bytes = largest_bytes
        self._url, self._secret = _address(wanted.given.source)

    def newest(self) -> str:
        """Return which commit is meant now; empty where only fetching would tell.

        Raises:
            MaterialError: the repository cannot be reached.
        """
        revision = self._wanted.given.revision
        if revision is not None and _is_commit(revision):
            return revision.lower()
        refs = ["HEAD"] if revision is None else _refs(revision)
        said = self._run(["ls-remote", "--", self._url, *refs], seconds=LOOK_SECONDS)
        lines = [line.partition("\t") for line in said.splitlines()]
        found = {ref: commit for commit, tab, ref in lines if tab}
        if not found:
            raise self._error(
                f"it has no branch or tag {printable(revision or 'HEAD')}. A commit is "
                "to be written with all its 40 digits"
            )
        return next((found[ref] for ref in refs if ref in found), "")

    def fetch(self) -> str:
        """Fetch the commit; return its name.

        Raises:
            MaterialError: it cannot be had.
        """
        self._folder.mkdir(mode=0o700)
        self._run(["init", "--quiet", "--bare", "--template=", "."])
        revision = self._wanted.given.revision
        self._run(
            [
                *("fetch", "--quiet", "--depth=1", "--no-tags"),
                *("--no-recurse-submodules", "--no-write-fetch-head"),
                *("--no-auto-maintenance", "--", self._url),
                f"+{revision or 'HEAD'}:refs/gpuworkshop/wanted",
            ],
            seconds=FETCH_SECONDS,
            watched=True,
        )
        return self._run(["rev-parse", "refs/gpuworkshop/wanted^{commit}"]).strip()

    def unpack(self, commit: str, tree: Tree) -> None:
        """Write the files of a commit that was fetched.

        Raises:
            MaterialError: it holds what may not be there.
            OSError: the disk is full, say.
        """
        command = self._command(["archive", "--format=tar", commit])
        with subprocess.Popen(  # noqa: S603  git, and what we made of the file
            command,
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            if process.stdout is None:  # for mypy: it is a pipe
                raise AssertionError
            try:
                unpack_tar(process.stdout, tree)
            except BaseException:
                process.kill()
                raise
            # What pads the archive is left in the pipe.
            while process.stdout.read(65536):
                pass
        if process.returncode:
            raise self._error("its files cannot be read")

    def _run(
        self, arguments: Sequence[str], *, seconds: float = 60.0, watched: bool = False
    ) -> str:
        cwd = self._folder if self._folder.is_dir() else Path("/")
        with subprocess.Popen(  # noqa: S603  git, and what we made of the file
            self._command(arguments),
            cwd=cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = self._wait(process, seconds, watched=watched)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise self._error(self._said(err))
        return out.decode(errors="replace")

    def _wait(
        self, process: "subprocess.Popen[bytes]", seconds: float, *, watched: bool
    ) -> tuple[bytes, bytes]:
        waited = 0.0
        while True:
            try:
                return process.communicate(timeout=_WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                waited += _WATCH_SECONDS
            if watched and _size(self._folder) > self._largest_bytes:
                raise self._error(
                    f"it is larger than {size_words(self._largest_bytes)}, which "
                    "material.largest allows"
                )
            if waited >= seconds:
                raise self._error("git has not come back")

    def _command(self, arguments: Sequence[str]) -> list[str]:
        settings = [part for one in _SETTINGS for part in ("-c", one)]
        return [self._git, *settings, *arguments]

    def _environment(self) -> Mapping[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GIT_", "SSH_ASKPASS"))
        }
        made = {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=30 "
            "-oServerAliveInterval=15",
            "LC_ALL": "C",
        }
        if self._secret:
            # Not on the command line, which everybody on the machine can read.
            made |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"http.{self._url}.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {self._secret}",
            }
        return kept | made

    def _said(self, err: bytes) -> str:
        """Return why git failed: the first of its lines that says so."""
        lines = [line.strip() for line in err.decode(errors="replace").splitlines()]
        told = [line for line in lines if line.startswith(("fatal:", "ERROR:"))]
        words = (told or lines or ["git failed"])[0].partition(": ")[2]
        return printable(words.rstrip(".") or "git failed")

    def _error(self, why: str) -> MaterialError:
        return MaterialError(f"{self._wanted.shown} cannot be fetched: {why}.")


def _address(source: str) -> tuple[str, str]:
    """Return a repository's address, and what logs in there, base64; maybe empty."""
    url = split(source)
    if not url.netloc:
        # A path with a scheme: so it is fetched as from afar, one commit only.
        return (f"file://{source}" if source.startswith("/") else source), ""
    user, at, host = url.netloc.rpartition("@")
    bare = urlunsplit((url.scheme, host, url.path, url.query, ""))
    if not at:
        return bare, ""
    if url.scheme not in ("http", "https"):
        # A user name is no secret, and a password is of no use there.
        name = user.partition(":")[0]
        return urlunsplit((url.scheme, f"{name}@{host}", url.path, "", "")), ""
    name, _, password = user.partition(":")
    pair = f"{unquote(name)}:{unquote(password)}".encode()
    return bare, base64.b64encode(pair).decode("ascii")


def _refs(revision: str) -> list[str]:
    tag = f"refs/tags/{revision}"
    # The commit behind a tag that has a message goes before the tag itself.
    return [f"{tag}^{{}}", tag, f"refs/heads/{revision}"]


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(x in "0123456789abcdefABCDEF" for x in revision)


def _size(folder: Path) -> int:
    return sum(
        (Path(base) / name).lstat().st_size
        for base, _, names in os.walk(folder)
        for name in names
        if (Path(base) / name).exists()
    )
