"""Put three saved figures of the notebooks side by side: the picture at the top of the README.

    python -m benchmarks.overview

Run it after notebooks 01 and 07 were saved executed. Writes data/results/overview.png.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image

from helpers import files

SHOWN = (
    ("01", "plotting.face_rows("),
    ("01", "widgets.action_unit_mixer("),
    ("07", 'print("no correct prediction'),
)
"""Notebook, and what the code of the cell holds whose figure is taken."""
HEIGHT, GAP = 270, 16  # pixels


def figure(number: str, code: str) -> Image.Image:
    """Return the first figure of the cells of a notebook that hold some code; of several the largest."""
    [path] = Path().glob(f"{number}_*.ipynb")
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if code in "".join(cell["source"]):
            images = (output.get("data", {}).get("image/png") for output in cell.get("outputs", ()))
            found += [Image.open(io.BytesIO(base64.b64decode("".join(each)))) for each in images if each]
    return max(found, key=lambda image: image.width * image.height).convert("RGB")


def main() -> None:
    """Write the picture."""
    figures = [figure(*each) for each in SHOWN]
    figures = [
        each.resize((each.width * HEIGHT // each.height, HEIGHT), Image.Resampling.LANCZOS)
        for each in figures
    ]
    whole = Image.new("RGB", (sum(each.width + GAP for each in figures) - GAP, HEIGHT), "white")
    left = 0
    for each in figures:
        whole.paste(each, (left, 0))
        left += each.width + GAP
    with files.replacing("data/results/overview.png") as file:
        whole.save(file, "PNG", optimize=True)
    print(
        f"{whole.width} x {whole.height} pixels, {Path('data/results/overview.png').stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
