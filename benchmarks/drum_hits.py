"""Recorded drum hits by instrument, tested on drum kits that training never heard.

    apt-get install hydrogen-drumkits        (Debian, Ubuntu; elsewhere unpack it and name its folder with --kits)
    python benchmarks/drum_hits.py OUT_DIR
    tubelet train OUT_DIR/data.csv

The kits come with the drum machine Hydrogen. A hit's label is the name of its instrument in the kit's drumkit.xml, put
down to one of eight. All kits of one author are in one split, so that a test hit is another drum, another microphone
and another hand. A hit is left out, and counted, where its label is in doubt or its sound is there already.

Licences differ from kit to kit (CC0, CC-BY, CC-BY-SA, GPL; see /usr/share/doc/hydrogen-drumkits/copyright). The table
points at the installed files; nothing is copied.
"""

import argparse
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tubelet.media.formats import SOUND_SUFFIXES, MediaError
from tubelet.media.reader import index

KITS = Path("/usr/share/hydrogen/data/drumkits")
SPLIT_OF_KIT = {
    "Millo-Drums_v.1": "test",
    "Millo_MultiLayered2": "test",
    "Millo_MultiLayered3": "test",
    "Audiophob": "val",
    "ColomboAcousticDrumkit": "val",
    "rumpf_kit_z01_h2": "val",
}  # the others are for training

HAT = r"hat|\bhh|hh\b"
WORDS = {
    "kick": r"kick|bass ?drum",
    "snare": r"snare",
    "tom": r"\btom|tom\b",
    "hihat_closed": rf"(?=.*({HAT}))(?=.*cl)",
    "hihat_open": rf"(?=.*({HAT}))(?=.*op)",
    "ride": r"ride",
    "crash": r"crash",
    "clap": r"clap",
    # strokes that sound unlike their instrument's plain one
    "other": r"rim|roll|bell|cup|semi|pedal|\bpd\b|choke|swish|free",
}


def instruments(name: str) -> set[str]:
    """The instruments that a name speaks of, and "other" for an unusual stroke. Brands in brackets do not count."""
    plain = re.sub(r"[^a-z]+", " ", re.sub(r"\(.*?\)", "", name.lower()))
    return {label for label, pattern in WORDS.items() if re.search(pattern, plain)}


def hits(kit: Path) -> Iterator[tuple[str, Path]]:
    """(name of the instrument, sound file) for all that drumkit.xml lists, whether or not the file is there."""
    for instrument in ElementTree.parse(kit / "drumkit.xml").iterfind(".//{*}instrument"):
        for file_name in instrument.iterfind(".//{*}filename"):
            yield instrument.findtext("{*}name") or "", kit / (file_name.text or "")


def label_or_reason(name: str, file: Path) -> tuple[str | None, str]:
    """The label of a hit, or None and why the hit is left out."""
    spoken = instruments(name)
    if len(spoken) != 1 or spoken == {"other"}:
        return None, "not plainly one of the eight instruments"
    if not instruments(file.stem) <= spoken:
        return None, "the file's name says otherwise"
    if file.suffix.lower() not in SOUND_SUFFIXES:
        return None, f"tubelet does not read {file.suffix}"
    try:
        index(file)  # a file may be missing, or another format than its name says
    except MediaError as error:
        return None, str(error)
    return spoken.pop(), ""


def collect(kits: list[Path]) -> tuple[list[tuple[str, str, str, str]], Counter[str]]:
    """Rows (path, label, split, group) of the table, and how many hits were left out for which reason."""
    rows, left_out, seen = [], Counter[str](), set()
    for kit in kits:
        for name, file in hits(kit):
            label, reason = label_or_reason(name, file)
            sound = hashlib.sha256(file.read_bytes()).digest() if label else b""
            if label and sound in seen:
                label, reason = None, "the same sound is there already"
            if label is None:
                left_out[reason] += 1
                continue
            seen.add(sound)
            rows.append((str(file), label, SPLIT_OF_KIT.get(kit.name, "train"), kit.name))
    return rows, left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, help="folder for data.csv")
    parser.add_argument("--kits", type=Path, default=KITS, help="folder with a folder for each kit")
    arguments = parser.parse_args()
    kits = sorted(file.parent for file in arguments.kits.absolute().glob("*/drumkit.xml"))
    if not kits:
        raise SystemExit(f"no drum kits in {arguments.kits}: apt-get install hydrogen-drumkits, or name their folder")
    rows, left_out = collect(kits)
    for reason, count in left_out.most_common():
        print(f"left out {count}: {reason}")
    for split in ("train", "val", "test"):
        counts = Counter(label for _, label, of, _ in rows if of == split)
        print(f"{split}: {counts.total()} hits:", ", ".join(f"{counts[label]} {label}" for label in sorted(counts)))
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    table = arguments.out_dir / "data.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    print(f"Next: tubelet train {table}")


if __name__ == "__main__":
    main()
