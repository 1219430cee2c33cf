"""The panels in a real browser: JupyterLab in Debian's Chromium, driven by Playwright.

Skipped, visibly, where Playwright or Chromium is not installed. The lines under test are the notebooks' own:
the cells tagged "panel", and those tagged "callback" that define what they call, run on a few faces.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers import cli, emotions, faces

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 90_000  # milliseconds; a busy machine may need them, an idle one some hundreds

SET_UP = """
import itertools
from dataclasses import replace
from functools import partial
import numpy as np, torch
from torch import nn
from helpers import batches, datasets, emotions, hog, losses, metrics, models, plotting, predictor, training
from helpers import widgets
plotting.style()
rows = slice(None)
SEED, LR, BATCH_SIZE, DROPOUT, AUGMENT, EPOCHS, IMAGE_SIZE = 0, 3e-3, 32, 0.1, 0.5, 20, 48
faces = datasets.load("synthetic", num_faces=600, root="FOLDER")
train, validation, test = faces.splits(seed=SEED)
parts = {"train": train, "validation": validation, "test": test}
classes, num_classes, in_channels = faces.classes, len(faces.classes), 1
three = ("anger", "fear", "happiness")
config = training.Config(seed=SEED)
torch.manual_seed(0)
model = models.create("face-cnn", num_classes, stem="unshuffle")
reader = predictor.Predictor(model, classes)
SCORES = {"accuracy": metrics.on_labels(metrics.accuracy)}
"""


def tagged(*tags: str) -> dict[str, list[str]]:
    """Return for each notebook the sources of its cells that carry one of the tags."""
    found = {}
    for path in cli.run.notebooks(ROOT):
        cells = nbformat.read(path, 4).cells
        sources = [cell.source for cell in cells if set(tags) & set(cell.metadata.get("tags", ()))]
        if sources:
            found[path.stem[:2]] = sources
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium with a new, empty profile, and a camera that shows a film."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    film = tmp_path_factory.mktemp("film") / "face.mjpeg"
    film.write_bytes(b"".join(filmed()))
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    camera += [f"--use-file-for-fake-video-capture={film}"]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *camera]
        )
        yield started
        started.close()


def filmed() -> list[bytes]:
    """Return some frames, as JPEG files, of a drawn face that smiles."""
    frames = []
    for smile in (0.0, 0.5, 1.0, 0.5):
        scene = np.full((240, 320), 125, np.uint8)
        scene[40:200, 80:240] = faces.render({"AU6": smile, "AU12": smile}, size=160)[0].numpy()
        frame = io.BytesIO()
        Image.fromarray(np.repeat(scene[..., None], 3, axis=2)).save(frame, "JPEG", quality=95)
        frames.append(frame.getvalue())
    return frames


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(folder: Path, *words: str):
    """Run a server in a folder, with settings of its own, and yield its address."""
    port, home = free_port(), folder / "home"
    quiet = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(home)}
    settings |= {"JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    command = [sys.executable, "-m", *[word.replace("PORT", str(port)) for word in words]]
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, server, folder / "server.log")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(4)  # a kernel whose server is gone ends by itself
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(address, timeout=2)
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no answer from the server:\n{log.read_text()[-3000:]}")


LAB = ["jupyterlab", "--no-browser", "--expose-app-in-browser", "--port=PORT", "--allow-root"]
LAB += ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]


class Page:
    """A notebook that is open in the browser.

    Args:
        page: Playwright's page.
    """

    def __init__(self, page) -> None:
        self.page, self.errors, self.panels = page, [], []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def run_lab(self, address: str, name: str) -> None:
        """Open a notebook in JupyterLab and run all its cells."""
        self.page.goto(f"{address}/lab/tree/{name}?reset")
        self.page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.sessionContext")
        self.page.evaluate(
            """async () => {
              const session = jupyterapp.shell.currentWidget.sessionContext;
              await session.ready;
              await jupyterapp.commands.execute('notebook:run-all-cells');
            }"""
        )

    def panel(self, name: str):
        """Return the panel that a function of ``widgets`` made, once its figure is there."""
        found = (i for i, line in enumerate(self.panels) if f"widgets.{name}(" in line)
        number = next(found, None)
        if number is None:
            pytest.skip(f"no notebook has a {name}")
        found = self.page.locator(".jupyter-widgets.widget-hbox:has(> .widget-vbox img)").nth(number)
        found.wait_for()
        found.scroll_into_view_if_needed()
        return found

    def figure(self, panel) -> str:
        """Return which figure is shown: each has an address of its own."""
        image = panel.locator("img").first
        self.page.wait_for_function("image => image.naturalWidth > 50", arg=image.element_handle())
        return image.get_attribute("src")

    def until_new(self, panel, before: str) -> str:
        """Wait for another figure than the one before, and return it."""
        image = panel.locator("img").first.element_handle()
        changed = "([image, before]) => image.src !== before && image.naturalWidth > 50"
        self.page.wait_for_function(changed, arg=[image, before])
        return image.get_attribute("src")

    def move(self, panel, label: str, share: float) -> None:
        """Click on a slider at a share of its length."""
        row = panel.locator(".widget-inline-hbox", has_text=label).first
        track = row.locator(".noUi-base").bounding_box()
        self.page.mouse.click(track["x"] + share * track["width"], track["y"] + track["height"] / 2)


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """JupyterLab with one notebook of all panels, which has run; yields the page and the order of panels."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [new_code_cell(SET_UP.replace("FOLDER", str(folder / "data")))]
    sources = [source for each in tagged("panel", "callback").values() for source in each]
    cells += [new_code_cell(source) for source in sources]
    cells.append(new_code_cell("widgets.camera(reader)"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "panels.ipynb")
    with served(folder, *LAB) as address:
        opened = Page(browser.new_page(viewport={"width": 1250, "height": 950}))
        opened.panels = [source for source in sources if source.startswith("widgets.")]
        opened.run_lab(address, "panels.ipynb")
        yield opened
        shots = os.environ.get("BROWSER_SHOTS")
        if shots:
            opened.page.screenshot(path=Path(shots) / "last.png")


def shoot(lab: Page, panel, name: str) -> None:
    """Keep a picture of a panel for whoever set BROWSER_SHOTS to a folder."""
    if os.environ.get("BROWSER_SHOTS"):
        panel.screenshot(path=Path(os.environ["BROWSER_SHOTS"]) / f"{name}.png")


def test_the_faces_browser_follows(lab):
    panel = lab.panel("faces_browser")
    before = lab.figure(panel)
    panel.locator("select").nth(1).select_option("happiness")
    after = lab.until_new(panel, before)
    lab.move(panel, "page", 0.99)
    lab.until_new(panel, after)
    shoot(lab, panel, "browser")


def test_the_mixer_draws_while_sliders_move(lab):
    panel = lab.panel("action_unit_mixer")
    before = lab.figure(panel)
    lab.move(panel, "12 lip corners up", 0.9)
    after = lab.until_new(panel, before)
    panel.locator("select").first.select_option("surprise")
    lab.until_new(panel, after)
    shoot(lab, panel, "mixer")


def test_the_hog_picture_and_its_score_follow(lab):
    panel = lab.panel("hog_explorer")
    before = lab.figure(panel)
    lab.move(panel, "cell (pixels)", 0.6)
    lab.until_new(panel, before)
    panel.get_by_text("accuracy on validation").wait_for()
    shoot(lab, panel, "hog")


def test_a_training_is_watched_stopped_and_gone_on_with(lab):
    panel = lab.panel("trainer")
    before = lab.figure(panel)
    panel.get_by_role("button", name="Train").click()
    first = lab.until_new(panel, before)
    second = lab.until_new(panel, first)
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("stopped;").wait_for()
    shoot(lab, panel, "trainer")
    last = lab.figure(panel)
    time.sleep(1.5)
    assert lab.figure(panel) == last, "nothing grows after the stop"
    panel.get_by_role("button", name="Continue").click()
    lab.until_new(panel, last)
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("stopped;").wait_for()
    assert second != first


def test_heat_follows_layer_and_picture(lab, tmp_path):
    panel = lab.panel("heat_maps")
    before = lab.figure(panel)
    lab.move(panel, "face", 0.5)
    after = lab.until_new(panel, before)
    panel.locator("select").first.select_option("blocks.1")
    last = lab.until_new(panel, after)
    (tmp_path / "me.jpg").write_bytes(filmed()[2])
    with lab.page.expect_file_chooser() as asked:
        panel.get_by_role("button", name="your own picture").click()
    asked.value.set_files(tmp_path / "me.jpg")
    lab.until_new(panel, last)
    panel.get_by_text("your picture").wait_for()
    shoot(lab, panel, "heat")


def test_losses_follow(lab):
    panel = lab.panel("loss_explorer")
    before = lab.figure(panel)
    lab.move(panel, "target: happiness", 0.3)
    lab.until_new(panel, before)
    shoot(lab, panel, "losses")


def test_the_browsers_camera_is_read(lab):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    button = lab.page.get_by_role("button", name="Start camera")
    button.scroll_into_view_if_needed()
    button.click()
    panel = lab.page.locator(".widget-vbox", has=lab.page.get_by_role("button", name="Stop camera")).last
    first = lab.figure(panel)
    second = lab.until_new(panel, first)
    panel.locator(".widget-html", has_text=re.compile("|".join(emotions.FER7))).first.wait_for()
    assert lab.until_new(panel, second) != first
    shoot(lab, panel, "camera")
    lab.page.get_by_role("button", name="Stop camera").click()
    lab.page.get_by_role("button", name="Start camera").wait_for()


def test_the_kernel_lives_and_the_console_is_clean(lab):
    status = lab.page.evaluate(
        """async () => {
          const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          const future = kernel.requestExecute({code: 'print(6 * 7)'});
          let said = '';
          future.onIOPub = (message) => { said += message.content.text || ''; };
          await future.done;
          return said;
        }"""
    )
    assert status.strip() == "42"
    assert lab.errors == []


def test_voila_shows_a_panel_that_follows(browser, tmp_path):
    pytest.importorskip("voila", reason="voila is not installed")
    notebook = new_notebook(cells=[new_code_cell("from helpers import widgets\n\nwidgets.loss_explorer()")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "panel.ipynb")
    with served(tmp_path, "voila", "panel.ipynb", "--no-browser", "--port=PORT") as address:
        shown = Page(browser.new_page(viewport={"width": 1250, "height": 950}))
        shown.page.goto(address)
        panel = shown.page.locator(".jupyter-widgets.widget-hbox:has(> .widget-vbox img)").first
        panel.wait_for()
        before = shown.figure(panel)
        shown.move(panel, "target: fear", 0.8)
        shown.until_new(panel, before)
        shown.page.close()
