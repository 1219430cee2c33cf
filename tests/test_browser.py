"""Panels in a real browser: Voilà and JupyterLab in a headless Chromium, driven by Playwright.

Skipped, visibly, where Playwright or Chromium is not installed.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers import emotions, faces

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 90_000  # milliseconds; a busy machine may need them, an idle one some hundreds
NOT_OURS = "ERR_NAME_NOT_RESOLVED|labextensions/(?!anywidget|@jupyter-widgets)"
"""Voilà takes icons from the network, which may not be there, and loads extensions made for JupyterLab."""

CELLS = [
    """import torch
from torch import nn
from helpers import datasets, losses, metrics, models, plotting, predictor, training, widgets
plotting.style()
train, validation, test = datasets.load("synthetic", num_faces=400, root="FOLDER").splits(seed=0)

def make():
    return nn.Sequential(nn.Conv2d(1, 8, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 11 * 11, 7))

def train_with(net, lr=1e-3, epochs=30, **watch):
    scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
    config = training.Config(lr=lr, epochs=epochs, batch_size=8, precision="float32")
    return training.fit(net, train, validation, losses.on_labels(), scores, config, **watch)
""",
    "explorer = widgets.loss_explorer()\nexplorer",
    "trainer = widgets.trainer(train_with, make)\ntrainer",
    "widgets.camera(predictor.Predictor(models.create('face-cnn', 7, widths=(8, 8, 8, 8)), train.classes))",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("panels")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [new_code_cell(source.replace("FOLDER", str(folder / "data"))) for source in CELLS]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "panels.ipynb")
    return folder


@pytest.fixture(scope="module")
def browser(folder) -> Iterator[Any]:
    """A headless Chromium with an empty profile, and a camera that shows a drawn face that smiles."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    film = folder / "face.mjpeg"
    film.write_bytes(b"".join(frame(smile) for smile in (0.0, 0.5, 1.0, 0.5)))
    words = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
    words += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=words)
        yield chromium
        chromium.close()


def frame(smile: float) -> bytes:
    scene, file = np.full((240, 320), 125, np.uint8), io.BytesIO()
    scene[40:200, 80:240] = faces.render({"AU6": smile, "AU12": smile}, size=160)[0].numpy()
    Image.fromarray(np.repeat(scene[..., None], 3, axis=2)).save(file, "JPEG", quality=95)
    return file.getvalue()


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[str]:
    """Run a server in a folder, with settings of its own, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    settings |= {f"{name}_DIR": str(folder / name) for name in ("JUPYTER_CONFIG", "JUPYTER_RUNTIME")}
    settings["IPYTHONDIR"] = str(folder / "ipython")
    command = [sys.executable, "-m", *words, "--no-browser", f"--port={port}"]
    log = folder / f"{words[0]}.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=output, stderr=output)
    try:
        end, address = time.monotonic() + PATIENCE / 1000, f"http://127.0.0.1:{port}"
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]  # noqa: PT018
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=2)
                break
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(4)  # a kernel whose server is gone ends by itself
        server.kill()
        server.wait()


def opened(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1250, "height": 950})
    page.set_default_timeout(PATIENCE)
    page.wrong = []
    page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(address)
    return page


@pytest.fixture(scope="module")
def lab(browser, folder) -> Iterator[Any]:
    """The notebook, open in JupyterLab and run."""
    words = ["--expose-app-in-browser", "--allow-root", "--IdentityProvider.token="]
    words += ["--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]
    with served(folder, "jupyterlab", *words) as address:
        page = opened(browser, f"{address}/lab/tree/panels.ipynb?reset")
        page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.sessionContext")
        page.evaluate(
            """async () => {
              await jupyterapp.shell.currentWidget.sessionContext.ready;
              await jupyterapp.commands.execute('notebook:run-all-cells');
            }"""
        )
        yield page
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def asked(page: Any, code: str) -> str:
    """Return what the kernel in JupyterLab prints when it runs some code."""
    return page.evaluate(
        """async (code) => {
          const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          const future = kernel.requestExecute({code});
          let said = '';
          future.onIOPub = (message) => { said += message.content.text || message.content.evalue || ''; };
          await future.done;
          return said.trim();
        }""",
        code,
    )


def panel(page: Any, number: int) -> Any:
    found = page.locator(".jupyter-widgets.widget-hbox:has(> .widget-vbox img)").nth(number)
    found.wait_for()
    found.scroll_into_view_if_needed()
    return found


def figure(page: Any, panel: Any, before: str = "") -> str:
    """Return the address of the figure, once it is another than the one before."""
    image = panel.locator("img").first
    changed = "([image, before]) => image.src !== before && image.naturalWidth > 50"
    page.wait_for_function(changed, arg=[image.element_handle(), before])
    return image.get_attribute("src")


def move(page: Any, panel: Any, label: str, share: float) -> None:
    """Click on a slider, at a share of its length."""
    row = panel.locator(".widget-inline-hbox", has_text=label).first
    row.scroll_into_view_if_needed()
    track = row.locator(".noUi-base").bounding_box()
    assert track["width"] >= 250
    assert row.locator("label").first.evaluate("label => label.scrollWidth <= label.clientWidth")
    page.mouse.click(track["x"] + share * track["width"], track["y"] + track["height"] / 2)


def test_a_panel_follows_its_slider_in_voila(browser, folder):
    pytest.importorskip("voila", reason="voila is not installed")
    with served(folder, "voila", "panels.ipynb") as address:
        page = opened(browser, address)
        explorer = panel(page, 0)
        before = figure(page, explorer)
        move(page, explorer, "target: fear", 0.8)
        figure(page, explorer, before)
        assert [error for error in page.wrong if not re.search(NOT_OURS, error)] == []


def test_a_training_is_watched_stopped_and_gone_on_with_in_jupyterlab(lab):
    trainer = panel(lab, 1)
    empty = figure(lab, trainer)
    move(lab, trainer, "learning rate", 0.3)
    trainer.get_by_role("button", name="Train").click()
    first = figure(lab, trainer, empty)
    assert float(asked(lab, "print(trainer.values()['lr'])")) < 1e-3, "the kernel answers meanwhile"
    figure(lab, trainer, first)
    trainer.get_by_role("button", name="Stop").click()
    trainer.get_by_text("stopped; best").wait_for()
    last = figure(lab, trainer)
    trainer.get_by_role("button", name="Continue").click()
    figure(lab, trainer, last)
    trainer.get_by_role("button", name="Stop").click()
    trainer.get_by_text("stopped; best").wait_for()
    lab.set_viewport_size({"width": 520, "height": 900})
    lab.evaluate("jupyterapp.shell.collapseLeft()")
    inside, shown = trainer.bounding_box(), trainer.locator("img").first.bounding_box()
    assert shown["width"] >= 300, "in a narrow window the figure stands below"
    assert shown["x"] + shown["width"] <= min(520, inside["x"] + inside["width"]) + 1
    lab.set_viewport_size({"width": 1250, "height": 950})
    assert lab.wrong == []


def test_the_browsers_camera_is_read_and_may_go_away(lab):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    lab.evaluate(
        """() => {
          const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => window.stream = await ask(wanted);
        }"""
    )
    button = lab.get_by_role("button", name="Start camera")
    button.scroll_into_view_if_needed()
    button.click()
    camera = lab.locator(".widget-vbox", has=lab.get_by_role("button", name="Stop camera")).last
    figure(lab, camera, figure(lab, camera, figure(lab, camera)))
    camera.locator(".widget-html", has_text=re.compile("|".join(emotions.FER7))).first.wait_for()
    lab.evaluate("window.stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    lab.get_by_text("the camera went away; plug it in and start again").wait_for()
    refused = "navigator.mediaDevices.getUserMedia = async () => { throw new Error('none found'); }"
    lab.evaluate(f"() => {{ {refused} }}")  # a function, or Playwright would call what is assigned
    button.click()
    lab.get_by_text("no camera: none found; plug one in and allow its use").wait_for()
