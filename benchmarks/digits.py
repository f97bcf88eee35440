"""Recorded images: scikit-learn's handwritten digits (1,797 of 8 x 8 pixels), as a folder of picture files.

    python benchmarks/digits.py OUT_DIR
    tubelet train OUT_DIR --minutes 2

Source: "Optical Recognition of Handwritten Digits", UCI repository, CC-BY 4.0; it comes with scikit-learn.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(out: Path) -> None:
    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        # four times as large, so that the file is still a picture after a codec has seen it
        pixels = np.kron(picture / 16 * 255, np.ones((4, 4))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    print(f"Next: tubelet train {out} --minutes 2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
