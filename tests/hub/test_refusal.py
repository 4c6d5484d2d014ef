"""What an attendee reads whose share is refused."""

from types import SimpleNamespace

from jupyterhub.utils import format_exception

from jupyterhub_gpuworkshop.hub.refusal import refusal


def test_the_spawn_form_shows_the_sentence_and_nothing_of_the_programs():
    spawner = SimpleNamespace(_spawn_future=None)
    error = refusal("The GPU is taken: 2 of 2 shares.", spawner)
    message, html = format_exception(error)
    assert (message, html) == ("The GPU is taken: 2 of 2 shares.", None)
    assert error.status_code == 503
