"""The settings that tubelet 0.1.0 wrote into model files: a family's name, and what differed from it.

The lines of the families are those of 0.1.0, whatever has become of them since.
"""

from typing import Any

Json = dict[str, Any]

FAMILIES: dict[str, tuple[Json, ...]] = {
    "vit": ({"tables": ("hw",)},),
    "vivit1": ({"tables": ("thw",)},),
    "vivit2": ({"tables": ("hw",), "over": "hw"}, {"tables": ("t",), "over": "t"}),
    "vivit3": ({"tables": ("thw",), "attend": "hw,t", "pool": "mean"},),
    "vivit4": ({"tables": ("thw",), "attend": "t|hw", "pool": "mean"},),
    "timesformer": ({"tables": ("hw", "t"), "attend": "t,hw"},),
    "vidtrans": ({"tables": ("hw", "t")},),
    "videomae": ({"tables": ("thw",), "position": "fixed", "pool": "mean", "norm": "pooled"},),
    "vjepa2": ({"position": "rotary-tiled", "pool": "attentive"},),
    "ast": ({"tables": ("hw",), "pool": "cls+dist", "norm": "both"},),
    "swin2": ({"kind": "windows"},),
    "meta": ({"position": "sincos", "pool": "mean", "norm": "none"},),
}
TABLES = {"joint": ("thw",), "space+time": ("hw", "t"), "t+h+w": ("t", "h", "w")}
PREFIXES = {"cls": 1, "cls+dist": 2, "cls,dist": 2}
NEEDED = ("family", "dim", "depth", "heads", "mlp_dim", "patch", "clip", "num_classes")
DEFAULTS: Json = (
    {"channels": 3, "mean": (0.5,), "std": (0.5,), "embed": "tubelet", "layers": (), "widths": (), "pool_depth": 3}
    | {"temporal_depth": 4, "keep_aspect": False, "eps": 1e-6, "pool_eps": 1e-6, "gelu": "erf"}
    | dict.fromkeys(("stride", "frames", "pad", "attend", "window", "position", "prefix", "pool", "norm"))
    | dict.fromkeys(("drop_path", "dropout", "checkpointing"))  # of training: left out
)


def upgrade(values: Json) -> Json:
    """Settings of 0.1.0 -> the same settings as `ModelConfig.to_json` writes them.

    Raises:
        ValueError: an unknown or missing key, an unknown family, or settings that it does not have.
    """
    if wrong := sorted(set(values) - {*NEEDED, *DEFAULTS} | set(NEEDED) - set(values)):
        raise ValueError(f"model settings that are unknown or missing: {', '.join(wrong)}: made by another version?")
    old = DEFAULTS | values
    if str(old["family"]) not in FAMILIES:
        raise ValueError(f"unknown family {str(old['family'])[:80]!r}: expected one of {', '.join(FAMILIES)}")
    make = windows if old["family"] == "swin2" else blocks
    stages = [make(old, line) for line in FAMILIES[str(old["family"])]]
    embed = {name: old[name] for name in ("patch", "frames", "pad", "layers", "widths")}
    embed |= {"kind": old["embed"], "stride": old["patch"] if old["stride"] is None else old["stride"]}
    stages = stages[:1] if old["temporal_depth"] == 0 else stages  # without the second, frames are averaged
    kept = {name: old[name] for name in ("family", "clip", "channels", "num_classes", "mean", "std")}
    return kept | {"embed": embed, "stages": stages}


def windows(old: Json, line: Json) -> Json:
    own = {"attend": None, "position": None, "prefix": None, "pool": "mean", "norm": "stages"}
    if others := {name: old[name] for name in own if old[name] not in (None, own[name])}:
        raise ValueError(f"model settings with windows and {others}")
    numbers = {name: old[name] for name in ("dim", "heads", "mlp_dim", "window", "eps")}
    return line | numbers | {"depths": old["depth"], "level_norms": old["norm"] == "stages"}


def blocks(old: Json, line: Json) -> Json:
    if old["window"] is not None:
        raise ValueError(f"model settings with a window for {old['family']}")
    over, numbers = line.get("over", "thw"), ("dim", "heads", "mlp_dim", "keep_aspect", "pool_depth")
    stage = {"kind": "blocks", "pool": "cls", "tables": (), "depth": old["temporal_depth" if over == "t" else "depth"]}
    stage |= line | {name: old[name] for name in (*numbers, "eps", "pool_eps", "gelu")}
    stage |= {name: old[name] for name in ("pool", "norm") if old[name] is not None}
    stage |= {"prefix": PREFIXES.get(str(stage["pool"]), 0) if old["prefix"] is None else old["prefix"]}
    if old["attend"] is not None and over != "t":
        stage |= {"attend": old["attend"]}
    if str(old["position"]) in TABLES:
        shares = ("".join(axis for axis in axes if axis in over) for axes in TABLES[str(old["position"])])
        stage |= {"position": "learned", "tables": tuple(dict.fromkeys(share for share in shares if share))}
    elif old["position"] is not None:
        stage |= {"position": old["position"], "tables": stage["tables"] if old["position"] == "fixed" else ()}
    return stage
