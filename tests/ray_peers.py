"""recipes/ray_predict.py on one machine, in an environment of its own (`make ray`): its table is what one process says.

python -m venv .ray
.ray/bin/pip install -c constraints.txt -e . 'ray[data]'
.ray/bin/python tests/ray_peers.py
"""

import csv
import os
import runpy
import sys
import tempfile
from pathlib import Path

import ray
from small_sets import spoil, tiny_config, write_videos

import tubelet
from tubelet.train.train import train_fn

RECIPE = Path(__file__).parent.parent / "recipes" / "ray_predict.py"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = write_videos(folder / "clips", 8)
        run = train_fn(tiny_config(clips, folder / "run", epochs=1), show=False)
        spoil(clips / "dark" / "3.mp4")
        sys.argv = [str(RECIPE), str(run), str(clips), str(folder / "answers")]
        runpy.run_path(str(RECIPE), run_name="__main__")
        ray.shutdown()
        tables = [list(csv.DictReader(file.read_text().splitlines())) for file in (folder / "answers").iterdir()]
        rows = {row["path"]: row for table in tables for row in table}
        expected = tubelet.Predictor.load(run).predict_files(sorted(clips.rglob("*.mp4")))
        assert len(rows) == len(expected) == sum(map(len, tables)) == 16
        for one in expected:
            row = rows[one.path]
            assert (row["label"], row["code"]) == (one.label or "", one.code)
            if one.probability is not None:
                assert abs(float(row["probability"]) - one.probability) < 1e-6
        assert rows[str(clips / "dark" / "3.mp4")]["code"] != "ok"
    print(f"ray {ray.__version__}: {len(rows)} files, the answers of one process")


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main()
