"""Reads the processes again and again, at half the cost of reading them once.

Owns the files of /proc that are kept open between two reads. An open file of /proc/PID
means one process for good: once that has ended it cannot be read, and it never shows a
later process of the same number. Nothing is believed from before: every value is read
again, only what it means is remembered for as long as the text is the same.
"""

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts

from . import processes

_SPARED_FILES = 512
"""What is left to the rest of this process of the files that it may have open."""


@dataclass(slots=True)
class _Kept:
    """What is kept of one process.

    Attributes:
        stat: the open file, as are the next two; -1 where there is none.
        text: of stat, when it was read last.
        facts: what that text says.
        described: the same with details, as of `detail_texts`.
    """

    stat: int
    cgroup: int = -1
    command: int = -1
    text: bytes = b""
    facts: ProcessFacts | None = None
    detail_texts: tuple[bytes, bytes] = (b"", b"")
    described: ProcessFacts | None = None

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self.stat, self.cgroup, self.command):
            if descriptor >= 0:
                os.close(descriptor)


class ProcessReader:
    """The processes of this machine, as `processes.read_processes` reads them.

    Not for two threads at once.

    Args:
        most_files: how many may be kept open, three for each process at most; None
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
            for pid, uid in processes.list_processes():
                facts = self._read(pid, uid, before.pop(pid, None))
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
        if kept is None or kept.facts is not facts:
            return processes.describe(facts)
        if kept.command < 0 and not self._open_details(kept, facts):
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

    def _read(self, pid: int, uid: int, kept: _Kept | None) -> ProcessFacts | None:
        text = b""
        if kept is not None:
            try:
                text = os.pread(kept.stat, processes.STAT_BYTES, 0)
            except OSError:
                self._let_go(kept)  # it has ended; its number may be another's
                kept = None
        if kept is None:
            kept = self._open(pid)
            if kept is None:
                return processes.read_process(pid, with_details=False)
            try:
                text = os.pread(kept.stat, processes.STAT_BYTES, 0)
            except OSError:
                self._let_go(kept)
                return None
        self._kept[pid] = kept
        if text != kept.text or kept.facts is None or kept.facts.uid != uid:
            kept.text = text
            kept.facts = processes.parse_facts(pid, uid, text)
            kept.described = None
        return kept.facts

    def _open(self, pid: int) -> _Kept | None:
        (stat,) = self._open_files(pid, ("stat",)) or (-1,)
        return _Kept(stat=stat) if stat >= 0 else None

    def _open_details(self, kept: _Kept, facts: ProcessFacts) -> bool:
        opened = self._open_files(facts.pid, ("cgroup", "cmdline"))
        if not opened:
            return False
        kept.cgroup, kept.command = opened
        # The number was the process's until after these were opened, or this fails.
        try:
            return bool(os.pread(kept.stat, 1, 0))
        except OSError:
            self._let_go(kept)
            del self._kept[facts.pid]
            return False

    def _open_files(self, pid: int, names: Iterable[str]) -> list[int]:
        """Open all of these, or none."""
        opened: list[int] = []
        if self._most_files is None:
            self._most_files = _files_to_spare()
        try:
            for name in names:
                if self._files + len(opened) >= self._most_files:
                    raise OSError("as many files are open as may be")
                path = f"/proc/{pid}/{name}"
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            return []
        self._files += len(opened)
        return opened

    def _let_go(self, kept: _Kept) -> None:
        kept.close()
        self._files -= sum(x >= 0 for x in (kept.stat, kept.cgroup, kept.command))


def _files_to_spare() -> int:
    """Raise the limit of open files as far as it goes; return what may be kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(0, hard - _SPARED_FILES)
