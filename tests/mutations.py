"""Takes out, one by one, what keeps people's data safe, and sees that a test notices.

    python tests/mutations.py

Each mutation is made in a copy of the repository. `make soak` runs this; tests/test_mutations.py keeps the list true.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in `file`, becomes `new`; the test file `tests` must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "weights take their name before they are whole",
        "tubelet/weights/store.py",
        "    with write_aside(file) as temporary:",
        "    for temporary in [file]:",
        "tests/test_store.py",
    ),
    Mutation(
        "a file is not synced",
        "tubelet/system/files.py",
        "            os.fsync(handle.fileno())",
        "            pass",
        "tests/test_crash.py",
    ),
    Mutation(
        "the folder of checkpoints is not synced",
        "tubelet/runs/checkpoint.py",
        "        flush_folder(folder.parent)",
        "        pass",
        "tests/test_crash.py",
    ),
    Mutation(
        "a checkpoint is not compared with its manifest",
        "tubelet/runs/checkpoint.py",
        "    if stated != found:",
        "    if False:",
        "tests/test_crash.py",
    ),
    Mutation(
        "a packet that cannot be decoded ends the file",
        "tubelet/media/decoder.py",
        "    except Exception:  # not FFmpegError alone; the next packet may be good",
        "    except ZeroDivisionError:",
        "tests/test_health.py",
    ),
    Mutation(
        "pictures are not turned upright",
        "tubelet/media/decoder.py",
        "    return turned.turn_picture(scaled.to_ndarray())",
        "    return scaled.to_ndarray()",
        "tests/test_health.py",
    ),
    Mutation(
        "any container is opened",
        "tubelet/media/decoder.py",
        '    "format_whitelist": ",".join(CONTAINERS),\n',
        "",
        "tests/test_corpus.py",
    ),
    Mutation(
        "pipes and devices are opened",
        "tubelet/media/bytes.py",
        "    if not S_ISREG(status.st_mode):",
        "    if status.st_mode & 0o040000:",
        "tests/test_corpus.py",
    ),
    Mutation(
        "two trainings share a run directory",
        "tubelet/runs/lock.py",
        "            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "            pass",
        "tests/test_crash.py",
    ),
    Mutation(
        "broken weights replace a good checkpoint",
        "tubelet/runs/run.py",
        "        checkpoint.check_finite(step, tensors)\n",
        "",
        "tests/test_crash.py",
    ),
    Mutation(
        "what a demuxer steps over is not missed",
        "tubelet/media/health.py",
        "        breaks = broken_at(found.path)\n",
        "",
        "tests/test_chain.py",
    ),
    Mutation(
        "control characters of file names reach the terminal",
        "tubelet/system/exits.py",
        'print(f"tubelet: {visible_lines(words)}"',
        'print(f"tubelet: {words}"',
        "tests/test_messages.py",
    ),
    Mutation(
        "tensors may overlap in a file",
        "tubelet/weights/formats/safetensors_file.py",
        "        check_places({name: place for name, (_, place) in found.items()}, size)\n",
        "",
        "tests/test_strangers.py",
    ),
    Mutation(
        "there is no ceiling for bad files",
        "tubelet/data/bad_files.py",
        "min(count_share(self.most, self.train_files), self.train_files - 1)",
        "self.train_files - 1",
        "tests/test_bad_files.py",
    ),
    Mutation(
        "a bad clip's place is taken by a copy of the next",
        "tubelet/data/epochs.py",
        " + ([skips] if skips else [])",
        "",
        "tests/test_bad_files.py",
    ),
)


def main() -> None:
    chosen = [mutation for mutation in MUTATIONS if not sys.argv[1:] or any(a in mutation.name for a in sys.argv[1:])]
    unseen = [mutation.name for mutation in chosen if not noticed(mutation)]
    print(f"{len(chosen) - len(unseen)} of {len(chosen)} mutations were noticed")
    sys.exit(f"not noticed: {', '.join(unseen)}" if unseen else 0)


def noticed(mutation: Mutation) -> bool:
    with TemporaryDirectory() as folder:
        for name in ("tubelet", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder) / name)
        file = Path(folder) / mutation.file
        text = file.read_text()
        file.write_text(text.replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutation.tests]
        ran = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=False
        )
    failed = ran.returncode == 1
    by = next((line for line in ran.stdout.splitlines() if line.startswith("FAILED")), ran.stderr.strip()[-200:])
    print(f"{'noticed' if failed else 'NOT NOTICED'}: {mutation.name} {by.split(' - ')[0]}", flush=True)
    return failed


if __name__ == "__main__":
    main()
