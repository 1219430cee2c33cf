"""Write the pictures of the README from the saved figures of the notebooks.

    python -m benchmarks.overview

Run it after notebooks were saved executed. Writes overview.png and notebook_01.png … into data/results.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image

from helpers import files

TOP = (
    ("01", "plotting.face_rows("),
    ("01", "widgets.action_unit_mixer("),
    ("07", 'print("no correct prediction'),
)
"""Of the picture at the top: notebook, and what the code of the cell holds whose figure is taken."""
ROWS = ("doubt", "sees-figure", "maps-figure", "c018", "c018", "c018", "c127")
"""Of the picture of each notebook: the id of the cell."""
HEIGHT, GAP, SMALL = 270, 16, (190, 110)  # pixels


def figure(number: str, code: str = "", cell_id: str = "") -> Image.Image:
    """Return the largest figure of the cells of a notebook that hold some code, or have an id."""
    [path] = Path().glob(f"{number}_*.ipynb")
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["id"] == cell_id or (code and code in "".join(cell["source"])):
            images = (output.get("data", {}).get("image/png") for output in cell.get("outputs", ()))
            found += [Image.open(io.BytesIO(base64.b64decode("".join(each)))) for each in images if each]
    return max(found, key=lambda image: image.width * image.height).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    """Write a picture, and say how large it is."""
    with files.replacing(f"data/results/{name}.png") as file:
        image.save(file, "PNG", optimize=True)
    print(
        f"{name}: {image.width} x {image.height}, {Path(f'data/results/{name}.png').stat().st_size:,} bytes"
    )


def main() -> None:
    """Write all of them."""
    figures = [figure(*each) for each in TOP]
    figures = [each.resize((each.width * HEIGHT // each.height, HEIGHT), Image.LANCZOS) for each in figures]
    whole = Image.new("RGB", (sum(each.width + GAP for each in figures) - GAP, HEIGHT), "white")
    for i, each in enumerate(figures):
        whole.paste(each, (sum(before.width + GAP for before in figures[:i]), 0))
    save(whole, "overview")
    for number, cell_id in enumerate(ROWS, 1):
        small = figure(f"0{number}", cell_id=cell_id)
        small.thumbnail(SMALL, Image.LANCZOS)
        save(small.quantize(200, kmeans=3), f"notebook_0{number}")


if __name__ == "__main__":
    main()
