"""The pages: the organiser's, the attendee's, and the wall.

Owns who gets which page. A page is a frame without a single figure in it: its script
draws from the websocket what this viewer may see.
"""

from tornado.web import HTTPError

from .look import LookHandler


class PageHandler(LookHandler):
    """``GET`` of the service's root: the organiser's page, or the attendee's."""

    def get(self) -> None:
        """Write the page of who looks."""
        page = "organiser" if self.viewer.is_organiser else "attendee"
        self.write_page(f"{page}.html", words=page)


class WallHandler(LookHandler):
    """``GET wall``: for a projector; ``?names=yes`` says whose the memory is."""

    def get(self) -> None:
        """Write it."""
        if not self.viewer.is_organiser:
            raise HTTPError(403, reason="The wall is the organiser's to show.")
        names = self.get_query_argument("names", "") == "yes"
        self.write_page("wall.html", words="wall", names=names)


class NoPageHandler(LookHandler):
    """Whatever is at none of the service's addresses."""

    async def prepare(self) -> None:
        """Say so, to who looks and to nobody in particular alike."""
        self.send_error(404, reason="There is no such page.")
