"""What people ask for that is done to others' things, or said to them.

Owns who may have a kernel paused, restarted or stopped, and who may put a notice
before somebody's eyes. Whether a kernel can be taken although a person says so is
`core.asking`'s, and the act itself `acting`'s.
"""

import logging
import time
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.asking import Asker, why_no_notice, why_not_take
from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .acting import Actor
from .haste import Haste
from .history import History
from .monitor import Monitor
from .taking import Taking
from .web.auth import Viewer

_LOG = logging.getLogger(__name__)
_BEGINS = {
    Action.PARK: "it is paused, and its variables are kept.",
    Action.RESTART: "it is restarted, and its variables are gone.",
    Action.STOP_KERNEL: "it is stopped, and its variables are gone.",
}


def asker(viewer: Viewer, user: str) -> Asker:
    """Return who asks for something that is this user's, as others read it."""
    return Asker(
        name=viewer.name,
        is_organiser=viewer.is_organiser,
        is_own=bool(viewer.user) and viewer.user == user,
        is_user=viewer.is_user,
    )


class AskedActs:
    """Does what people ask for.

    Args:
        monitor: knows the kernels, and has the notices.
        actor: takes memory from kernels.
        history: takes the events.
        why_not_act: says why another service is to act, in a sentence.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        actor: Actor,
        history: History,
        *,
        why_not_act: Callable[[], str] = str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._actor = actor
        self._history = history
        self._why_not_act = why_not_act
        self._haste = Haste()
        self._wall = wall

    async def reclaim(self, viewer: Viewer, owner: Owner, action: Action) -> str:
        """Have a kernel paused, restarted or stopped.

        Args:
            viewer: who asks.
            owner: the kernel, as `Acts.kernel` returned it: one that they may mean.
            action: what is to be done; it is not restarted where it cannot be paused.

        Returns:
            What is done, in a sentence; what comes of it is not waited for.

        Raises:
            ActRefused: it is not done.
        """
        self._check_turn()
        if action is Action.PARK and self._actor.parks is not None:
            await self._actor.parks.refresh()
        watched = self._monitor.kernels.get(owner)
        if watched is None:
            raise NothingThere("It has ended meanwhile.")
        if why_not := why_not_take(
            action, self._monitor.watching.meant(owner, watched)
        ):
            raise ActRefused(why_not)
        if why_not := self._actor.why_not_begin(owner):
            raise ActRefused(why_not)
        self._haste.count(viewer)
        asked = asker(viewer, owner.user)
        _LOG.info(
            "%s asks for %s of kernel %s of %s",
            viewer.name,
            action.value,
            owner.kernel_id,
            owner.user,
        )
        self._actor.begin(
            Taking(
                owner=owner,
                watched=watched,
                action=action,
                reason=asked.did(action),
                must_be_idle=False,
                or_restart=False,
                asked=asked,
            )
        )
        name = watched.view.notebook or "Kernel"
        return f"{name}: {_BEGINS[action]} What came of it is told in a moment."

    async def give_notice(self, viewer: Viewer, user: str, text: str) -> str:
        """Put a notice before an attendee's eyes, in place of an earlier one.

        Raises:
            ActRefused: it is not given.
            ValueError: the text is none; with why.
        """
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may give a notice.")
        self._check_turn()
        if why_not := why_no_notice(text):
            raise ValueError(why_not)
        if not self._is_here(user):
            raise NothingThere(
                f"{user[:100]!r} has no share now: a notice is given to who has one."
            )
        said = f"{asker(viewer, '').at_the_beginning}: {text.strip()}"
        self._monitor.notices.give(NoticeKind.FROM_ORGANISER, user=user, text=said)
        _LOG.info("%s gives %s a notice", viewer.name, user)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=EventKind.NOTICE_GIVEN,
                user=user,
                reason=said,
                details={
                    "by": viewer.name,
                    "notice": NoticeKind.FROM_ORGANISER.value,
                },
            )
        )
        return f"{user} reads it on the page GPUs and on the hub's pages."

    def _is_here(self, user: str) -> bool:
        snapshot = self._monitor.snapshot
        here = {lease.user for lease in snapshot.leases}
        return bool(user) and user in here | {x.user for x in snapshot.kernels}

    def _check_turn(self) -> None:
        if why_not := self._why_not_act():
            raise ActRefused(why_not)
