"""A camera in the browser: its frames go to the kernel, and come back with what is read in them.

ipywidgets has no camera, so this one panel needs anywidget. Frames stay between your browser and your kernel.
"""

from __future__ import annotations

import io
import time
from typing import Any

import ipywidgets
import traitlets
from PIL import Image

from helpers import images
from helpers.widgets.panel import line

_SCRIPT = """
function render({ model, el }) {
  const [button, video, canvas] = ["button", "video", "canvas"].map((name) => document.createElement(name));
  button.className = "jupyter-button";
  video.muted = video.playsInline = video.hidden = true;
  let stream = null, timer = null, waiting = 0;
  const say = (text) => { model.set("trouble", text); model.save_changes(); };
  const stop = (text) => {
    clearInterval(timer);
    stream?.getTracks().forEach((track) => track.stop());
    stream = null; waiting = 0;
    button.textContent = "Start camera";
    say(text);
  };
  const send = () => {
    if (!stream || !video.videoWidth || Date.now() - waiting < 2000) return;
    canvas.width = 480;
    canvas.height = Math.round(canvas.width * video.videoHeight / video.videoWidth);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    waiting = Date.now();
    canvas.toBlob(async (blob) => {
      if (!blob || !stream) return;
      model.set("frame", new DataView(await blob.arrayBuffer()));
      model.save_changes();
    }, "image/jpeg", 0.85);
  };
  model.on("change:answered", () => { waiting = 0; });
  button.onclick = async () => {
    if (stream) return stop("stopped");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
      stream.getVideoTracks()[0].onended = () => stop("the camera went away; plug it in and start again");
      video.srcObject = stream;
      await video.play();
      if (!stream) return;  // it went away meanwhile
      button.textContent = "Stop camera";
      say("");
      timer = setInterval(send, 40);
    } catch (error) {
      stop("no camera: " + (error.message || error.name) + "; plug one in and allow its use");
    }
  };
  button.textContent = "Start camera";
  el.append(button, video);
  return () => { if (stream) stop("stopped"); };
}
export default { render };
"""


def camera(reader: Any) -> ipywidgets.Widget:
    """Return the panel that shows what your camera sees, with the faces as a ``Predictor`` reads them."""
    try:
        import anywidget
    except ImportError:
        raise ImportError("the camera in the browser needs anywidget: pip install anywidget") from None

    class Lens(anywidget.AnyWidget):
        """A button, and the frames that come after it was pressed."""

        _esm = _SCRIPT
        frame = traitlets.CBytes(b"").tag(sync=True)  # Bytes would refuse the memoryview that arrives
        answered = traitlets.Int(0).tag(sync=True)
        trouble = traitlets.Unicode("").tag(sync=True)

    lens, shown, note = Lens(), ipywidgets.Image(format="jpeg"), ipywidgets.HTML()
    stream, began = reader.stream(), time.perf_counter()

    def read(change: Any) -> None:
        try:
            seen = stream.next(images.read(bytes(change.new), color=True), time.perf_counter() - began)
            buffer = io.BytesIO()
            Image.fromarray(seen.annotated().transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
            shown.value, text = buffer.getvalue(), line(str(seen))
        except Exception as error:  # a front end shows nothing of what a callback raises
            text = line(str(error).strip().split("\n")[0] or type(error).__name__, wrong=True)
        if not lens.trouble:  # the last frame may come after it, or in one message with it
            note.value = text
        lens.answered += 1

    lens.observe(read, names="frame")
    lens.observe(lambda change: setattr(note, "value", line(change.new)), names="trouble")
    return ipywidgets.VBox([lens, shown, note])
