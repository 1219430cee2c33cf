"""The panels of all seven notebooks in a real browser; see ``browsing``.

Skipped, visibly, where Playwright or Chromium is not installed.
"""

from __future__ import annotations

import re
import time

import browsing
import pytest

from helpers import emotions

NUMBERS = ("01", "02", "03", "04", "05", "06", "07")
TRAINERS = NUMBERS[2:5]
CAMERA = "widgets.camera(reader)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("playwright", reason="playwright is not installed")
    if browsing.CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with browsing.chromium(tmp_path_factory.mktemp("film")) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the panels of each notebook."""
    folder = tmp_path_factory.mktemp("lab")
    for number in NUMBERS:
        browsing.write(folder, number, *[CAMERA] * (number == "07"))
    return folder


@pytest.fixture(scope="module")
def lab(browser, folder):
    with browsing.served(folder, *browsing.LAB) as address:
        yield address


@pytest.fixture(scope="module")
def notebook(request, browser, lab):
    """One notebook at a time, open in JupyterLab and run."""
    with browsing.in_lab(browser, lab, request.param, *[CAMERA] * (request.param == "07")) as page:
        yield page


def on(*numbers: str):
    return pytest.mark.parametrize("notebook", numbers, indirect=True)


@on("01")
def test_the_faces_browser_follows(notebook):
    panel = notebook.panel("faces_browser")
    before = notebook.figure(panel)
    panel.locator("select").nth(1).select_option("happiness")
    after = notebook.until_new(panel, before)
    notebook.move(panel, "page", 0.99)
    notebook.until_new(panel, after)
    notebook.shoot("browser", panel)


@on("01")
def test_the_mixer_draws_while_sliders_move(notebook):
    panel = notebook.panel("action_unit_mixer")
    before = notebook.figure(panel)
    notebook.move(panel, "12 lip corners up", 0.9)
    after = notebook.until_new(panel, before)
    panel.locator("select").first.select_option("surprise")
    notebook.until_new(panel, after)
    notebook.shoot("mixer", panel)


@on("02")
def test_the_hog_picture_and_its_score_follow(notebook):
    panel = notebook.panel("hog_explorer")
    before = notebook.figure(panel)
    notebook.move(panel, "cell (pixels)", 0.6)
    notebook.until_new(panel, before)
    panel.get_by_text("accuracy on validation").wait_for()
    notebook.shoot("hog", panel)


@on(*TRAINERS)
def test_a_training_is_watched_stopped_and_gone_on_with(notebook, request):
    panel = notebook.panel("trainer")
    last = train_and_stop(notebook, panel, meanwhile=lambda: notebook.ask("print(6 * 7)"))
    assert int(notebook.ask(browsing.AFTER_STOP)) <= 1, "it ends with the batch it is at"
    notebook.shoot(f"trainer_{request.node.callspec.params['notebook']}", panel)
    time.sleep(1)
    assert notebook.figure(panel) == last, "nothing grows after the stop"
    panel.get_by_role("button", name="Continue").click()
    notebook.until_new(panel, last)
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("stopped; best").wait_for()


def train_and_stop(page: browsing.Page, panel, meanwhile=lambda: "42") -> str:
    """Move a slider, press Train, see two epochs, press Stop; return the figure that is left."""
    before = page.figure(panel)
    page.move(panel, "epochs", 0.97)
    panel.get_by_role("button", name="Train").click()
    panel.get_by_text(re.compile(r"epoch \d+/(2\d|30)")).wait_for()
    first = page.until_new(panel, before)
    assert meanwhile() == "42", "the kernel answers meanwhile"
    second = page.until_new(panel, first)
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("stopped; best").wait_for()
    assert first != second
    return page.figure(panel)


@on("07")
def test_heat_follows_layer_and_picture(notebook, tmp_path):
    panel = notebook.panel("heat_maps")
    before = notebook.figure(panel)
    notebook.move(panel, "face", 0.5)
    after = notebook.until_new(panel, before)
    panel.locator("select").first.select_option("blocks.1")
    last = notebook.until_new(panel, after)
    (tmp_path / "me.jpg").write_bytes(browsing.filmed()[2])
    with notebook.page.expect_file_chooser() as asked:
        panel.get_by_role("button", name="your own picture").click()
    asked.value.set_files(tmp_path / "me.jpg")
    notebook.until_new(panel, last)
    panel.get_by_text("your picture").wait_for()
    notebook.shoot("heat", panel)


@on("06")
def test_losses_follow(notebook):
    panel = notebook.panel("loss_explorer")
    before = notebook.figure(panel)
    notebook.move(panel, "target: happiness", 0.3)
    notebook.until_new(panel, before)
    notebook.shoot("losses", panel)


@on("07")
def test_the_browsers_camera_is_read(notebook):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page = notebook.page
    button = page.get_by_role("button", name="Start camera")
    button.scroll_into_view_if_needed()
    button.click()
    panel = page.locator(".widget-vbox", has=page.get_by_role("button", name="Stop camera")).last
    first = notebook.figure(panel)
    second = notebook.until_new(panel, first)
    panel.locator(".widget-html", has_text=re.compile("|".join(emotions.FER7))).first.wait_for()
    assert notebook.until_new(panel, second) != first
    notebook.shoot("camera", panel)
    page.get_by_role("button", name="Stop camera").click()
    page.get_by_role("button", name="Start camera").wait_for()


GONE = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    window.stream = await ask(wanted);
    return window.stream;
  };
  const read = Blob.prototype.arrayBuffer;
  Blob.prototype.arrayBuffer = async function () {  // the last frame arrives after the camera went
    await new Promise((go) => setTimeout(go, 500));
    return read.call(this);
  };
}"""
NONE = """() => {
  navigator.mediaDevices.getUserMedia = async () => {
    throw new DOMException('Requested device not found', 'NotFoundError');
  };
}"""


@on("07")
def test_a_camera_that_goes_away_or_is_not_there_is_one_line(notebook):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page = notebook.page
    page.evaluate(GONE)
    page.get_by_role("button", name="Start camera").click()
    page.get_by_role("button", name="Stop camera").wait_for()
    time.sleep(0.3)
    page.evaluate("window.stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    page.get_by_text("the camera went away; plug it in and start again").wait_for()
    time.sleep(1.5)
    assert page.get_by_text("the camera went away; plug it in and start again").is_visible()
    page.evaluate(NONE)
    page.get_by_role("button", name="Start camera").click()
    page.get_by_text("no camera: Requested device not found; plug one in and allow its use").wait_for()


@on(*NUMBERS)
def test_a_narrow_window_cuts_nothing_off(notebook):
    page = notebook.page
    page.set_viewport_size({"width": 520, "height": 900})
    page.evaluate("jupyterapp.shell.collapseLeft()")
    for number, name in enumerate(notebook.panels):
        panel = page.locator(browsing.PANEL).nth(number)
        panel.scroll_into_view_if_needed()
        inside, shown = panel.bounding_box(), panel.locator("img").first.bounding_box()
        notebook.shoot(f"narrow_{name}", None)
        assert shown["width"] >= 300, f"{name}: the figure is too small to be read"
        assert shown["x"] + shown["width"] <= min(520, inside["x"] + inside["width"]) + 1
    page.set_viewport_size(browsing.WIDE)


@on(*NUMBERS)
def test_the_kernel_lives_and_the_console_is_clean(notebook):
    assert notebook.ask("print(6 * 7)") == "42"
    assert notebook.errors == []


@pytest.fixture(scope="module")
def voila(browser, folder):
    pytest.importorskip("voila", reason="voila is not installed")
    with browsing.served(folder, *browsing.VOILA) as address:
        yield address


NOT_OURS = "net::ERR_NAME_NOT_RESOLVED|labextensions/jupyterlab-jupytext"
"""Voilà takes icons from the network, which may not be there, and Jupytext's extension is for JupyterLab."""


def test_voila_shows_a_panel_that_follows(browser, voila):
    with browsing.in_voila(browser, voila, "06") as page:
        panel = page.panel("loss_explorer")
        before = page.figure(panel)
        page.move(panel, "target: fear", 0.8)
        page.until_new(panel, before)
        assert [error for error in page.errors if not re.search(NOT_OURS, error)] == []


def test_voila_trains(browser, voila):
    with browsing.in_voila(browser, voila, "04") as page:
        panel = page.panel("trainer")
        train_and_stop(page, panel)
        page.shoot("voila", panel)
        assert [error for error in page.errors if not re.search(NOT_OURS, error)] == []
