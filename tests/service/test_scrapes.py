"""What was scraped is given again for a moment, to who asks for the same."""

from jupyterhub_gpuworkshop.service.web.metrics import Scrapes

TEXT = "text/plain"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_who_asks_often_is_given_the_same_until_something_has_changed():
    made, clock = [], Clock()

    def make():
        made.append(len(made))
        return b"%d" % made[-1]

    scrapes = Scrapes(clock)
    assert [scrapes.answer((False, TEXT), 1, make) for _ in range(9)] == [b"0"] * 9
    assert scrapes.answer((False, TEXT), 2, make) == b"1"
    clock.now += 2.1
    assert scrapes.answer((False, TEXT), 2, make) == b"2"


def test_what_an_organiser_scrapes_is_given_to_organisers_alone():
    scrapes = Scrapes(Clock())
    assert scrapes.answer((True, TEXT), 1, lambda: b"names") == b"names"
    assert scrapes.answer((False, TEXT), 1, lambda: b"none") == b"none"
    assert scrapes.answer((True, TEXT), 1, lambda: b"made anew") == b"names"
