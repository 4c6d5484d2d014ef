"""Reads the processes again and again, at half the cost of reading them once.

Owns the files of /proc that are kept open between two reads. An open file of /proc/PID
means one process for good: once that has ended it cannot be read, and it never shows a
later process of the same number. Nothing is believed from before: every value is read
again, only what it means is remembered for as long as the text is the same.
"""

import os
import resource
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts

from . import processes

_SPARED_FILES = 512
"""What is left to the rest of this process of the files that it may have open."""

_OPENED = os.O_RDONLY | os.O_CLOEXEC


@dataclass(slots=True)
class _Kept:
    """What is kept of one process.

    Attributes:
        folder: /proc/PID, through which the other files are opened: they are of the
            same process, too.
        stat: the open file, as are the next two; -1 where it is not open.
        uid: the process's, when stat was read last.
        text: of stat, then.
        facts: what that text says; None of a zombie.
        detail_texts: of cgroup and command line.
        described: the facts with details, as of those texts.
    """

    folder: int
    stat: int
    cgroup: int = -1
    command: int = -1
    uid: int = -1
    text: bytes = b""
    facts: ProcessFacts | None = None
    detail_texts: tuple[bytes, bytes] = (b"", b"")
    described: ProcessFacts | None = None

    def files(self) -> list[int]:
        """Return all that is open."""
        files = (self.folder, self.stat, self.cgroup, self.command)
        return [file for file in files if file >= 0]


class ProcessReader:
    """The processes of this machine, as `processes.read_processes` reads them.

    Not for two threads at once.

    Args:
        most_files: how many may be kept open, four for each process at most; None
            for what the limit of open files leaves. What is beyond that is opened
            for each read.
    """

    def __init__(self, most_files: int | None = None) -> None:
        self._most_files = most_files
        self._files = 0
        self._kept: dict[int, _Kept] = {}

    def __del__(self) -> None:
        """Let go of all files: they are numbers, which nobody else would close."""
        self.close()

    def read(self) -> dict[int, ProcessFacts]:
        """Read every living process, without details, in one pass over /proc."""
        found = {}
        before, self._kept = self._kept, {}
        try:
            for name in os.listdir("/proc"):  # noqa: PTH208  # names, and many of them
                if not name.isdigit():
                    continue
                pid = int(name)
                kept = before.pop(pid, None) or self._open(pid)
                if kept is not None and not self._refresh(pid, kept):
                    # It has ended; its number may be another's.
                    self._let_go(kept)
                    kept = self._open(pid)
                    if kept is not None and not self._refresh(pid, kept):
                        self._let_go(kept)
                        continue
                if kept is None:
                    facts = processes.read_process(pid, with_details=False)
                else:
                    self._kept[pid] = kept
                    facts = kept.facts
                if facts is not None:
                    found[pid] = facts
        finally:
            for kept in before.values():
                self._let_go(kept)
        return found

    def describe(self, facts: ProcessFacts) -> ProcessFacts:
        """Add cgroup and command to what the last read says of a process.

        Returns:
            The facts, unchanged where the process has ended meanwhile.
        """
        kept = self._kept.get(facts.pid)
        if (
            kept is None
            or kept.facts is not facts
            or (kept.command < 0 and not self._open_details(kept))
        ):
            return processes.describe(facts)
        try:
            texts = (
                os.pread(kept.cgroup, processes.CGROUP_BYTES, 0),
                os.pread(kept.command, processes.COMMAND_BYTES, 0),
            )
        except OSError:
            return facts
        if kept.described is None or texts != kept.detail_texts:
            kept.described = processes.parse_details(facts, *texts)
            kept.detail_texts = texts
        if not kept.described.command:
            return processes.describe(facts)  # it has a name at least
        return kept.described

    def close(self) -> None:
        """Let go of all files."""
        for kept in self._kept.values():
            self._let_go(kept)
        self._kept = {}

    @staticmethod
    def _refresh(pid: int, kept: _Kept) -> bool:
        """Read a process again; say whether it is still there."""
        try:
            # Of an ended process the folder is root's: whether it lives, stat tells.
            uid = os.fstat(kept.folder).st_uid
            text = os.pread(kept.stat, processes.STAT_BYTES, 0)
        except OSError:
            return False
        if text != kept.text or uid != kept.uid:
            kept.uid, kept.text = uid, text
            kept.facts = processes.parse_facts(pid, uid, text)
            kept.described = None
        return True

    def _open(self, pid: int) -> _Kept | None:
        if not self._may_open(2):
            return None
        try:
            folder = os.open(f"/proc/{pid}", _OPENED | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            stat = os.open("stat", _OPENED, dir_fd=folder)
        except OSError:
            os.close(folder)
            return None
        self._files += 2
        return _Kept(folder=folder, stat=stat)

    def _open_details(self, kept: _Kept) -> bool:
        if not self._may_open(2):
            return False
        try:
            cgroup = os.open("cgroup", _OPENED, dir_fd=kept.folder)
        except OSError:
            return False
        try:
            kept.command = os.open("cmdline", _OPENED, dir_fd=kept.folder)
        except OSError:
            os.close(cgroup)
            return False
        kept.cgroup = cgroup
        self._files += 2
        return True

    def _may_open(self, files: int) -> bool:
        if self._most_files is None:
            self._most_files = _files_to_spare()
        return self._files + files <= self._most_files

    def _let_go(self, kept: _Kept) -> None:
        for descriptor in kept.files():
            os.close(descriptor)
            self._files -= 1


def _files_to_spare() -> int:
    """Raise the limit of open files as far as it goes; return what may be kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(0, hard - _SPARED_FILES)
