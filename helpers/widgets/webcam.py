"""A camera in the browser: its frames go to the kernel, and come back with what is read in them.

ipywidgets has no camera, so this one panel needs anywidget. Frames stay between your browser and your kernel.
"""

from __future__ import annotations

import importlib
import io
import time
from typing import Any, Protocol

import ipywidgets
import numpy as np
from PIL import Image

from helpers import images
from helpers.widgets.panel import line, one_line

_SCRIPT = """
function render({ model, el }) {
  const video = document.createElement("video");
  const canvas = document.createElement("canvas");
  const button = document.createElement("button");
  button.textContent = "Start camera";
  button.className = "jupyter-button";
  video.muted = true; video.playsInline = true; video.style.display = "none";
  el.append(button, video);
  let stream = null, timer = null, waiting = 0;
  const tell = (text) => { model.set("trouble", text); model.save_changes(); };
  const send = () => {
    if (!stream || !video.videoWidth || Date.now() - waiting < 2000 && waiting) return;
    canvas.width = model.get("width");
    canvas.height = Math.round(canvas.width * video.videoHeight / video.videoWidth);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(async (blob) => {
      if (!blob || !stream) return;
      waiting = Date.now();
      model.set("frame", new DataView(await blob.arrayBuffer()));
      model.save_changes();
    }, "image/jpeg", 0.85);
  };
  const stop = (text) => {
    clearInterval(timer);
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null; waiting = 0;
    button.textContent = "Start camera";
    tell(text);
  };
  model.on("change:answered", () => { waiting = 0; });
  button.onclick = async () => {
    if (stream) { stop("stopped"); return; }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
      stream.getVideoTracks()[0].onended = () => stop("the camera went away; plug it in and start again");
      video.srcObject = stream;
      await video.play();
      if (!stream) return;  // it went away meanwhile
      button.textContent = "Stop camera";
      tell("");
      timer = setInterval(send, 40);
    } catch (error) {
      stream = null;
      tell("no camera: " + (error.message || error.name) + "; plug one in and allow its use");
    }
  };
  return () => { if (stream) stop("stopped"); };
}
export default { render };
"""


class Reader(Protocol):
    """What reads frame after frame: a ``predictor.Predictor``."""

    def stream(self) -> Any:
        """Return an object whose ``next(picture, seconds)`` gives a reading with ``annotated()``."""


def camera(reader: Reader, width: int = 480) -> ipywidgets.Widget:
    """Return the panel that shows what a camera of the reader's computer sees, with the faces read.

    Args:
        reader: a ``predictor.Predictor``.
        width: of the frames that are sent, in pixels.

    Raises:
        ImportError: anywidget is not installed.
    """
    lens, picture, note = _lens(width), ipywidgets.Image(format="jpeg"), ipywidgets.HTML()
    stream, began = reader.stream(), time.perf_counter()

    def read(change: Any) -> None:
        try:
            seen = stream.next(images.read(bytes(change.new), color=True), time.perf_counter() - began)
            picture.value = _jpeg(seen.annotated())
            said = line(str(seen))
        except ValueError as error:
            said = line(one_line(error), wrong=True)
        if not lens.trouble:  # the last frame may come after it, or in one message with it
            note.value = said
        lens.answered += 1

    lens.observe(read, names="frame")
    lens.observe(lambda change: setattr(note, "value", line(change.new)), names="trouble")
    return ipywidgets.VBox([lens, picture, note])


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _lens(width: int) -> Any:
    try:
        anywidget = importlib.import_module("anywidget")
    except ImportError:
        raise ImportError("the camera in the browser needs anywidget: pip install anywidget") from None
    traits = importlib.import_module("traitlets")

    class Lens(anywidget.AnyWidget):
        """A button, and the frames that come after it was pressed."""

        _esm = _SCRIPT
        frame = traits.CBytes(b"").tag(sync=True)  # Bytes would refuse the memoryview that arrives
        width = traits.Int(480).tag(sync=True)
        answered = traits.Int(0).tag(sync=True)
        trouble = traits.Unicode("").tag(sync=True)

    return Lens(width=width)
