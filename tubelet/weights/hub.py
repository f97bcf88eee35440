"""Hugging Face's hub: the files of published weights, from its cache or, only when they are asked for, the network."""

import errno
import logging
import re
from contextlib import suppress
from pathlib import Path

from tubelet.weights.formats.open import INDEX, read_json
from tubelet.weights.published import HUB, find_published
from tubelet.weights.store import FILE

OF_TIMM = r"(vit|deit3?|flexivit|swinv2_cr)_\w+(\.[\w-]+)?"  # names that stand for a repository of timm's by themselves
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
BESIDE = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
# of repositories that have no .safetensors file
OTHER_FILES = {
    "google/videoprism-base-f16r288": "flax_base_f16r288_repeated.npz",
    "google/videoprism-large-f8r288": "flax_large_f8r288_repeated.npz",
    "google/videoprism-lvt-base-f16r288": "flax_lvt_base_f16r288_repeated.npz",
    "google/videoprism-lvt-large-f8r288": "flax_lvt_large_f8r288_repeated.npz",
}


def is_on_hub(name: str) -> bool:
    """Whether a name is one of the hub: "hf-hub:owner/name", one of timm's, or one that is listed."""
    line = find_published(name)
    return bool(re.fullmatch(rf"{HUB}\w[\w.-]*/\w[\w.-]*|{OF_TIMM}", name) or (line and line.on_hub))


def repository_of(name: str) -> str:
    """owner/name of a name on the hub."""
    bare = name.removeprefix(HUB)
    return bare if "/" in bare else f"timm/{bare}"


def fetch(name: str) -> Path:
    """The file of weights of a repository, with its settings beside it. Raises ValueError as `download`."""
    try:
        file = download(name, OTHER_FILES.get(repository_of(name), FILE))
    except ValueError as missing:
        try:
            file = download(name, INDEX)
        except ValueError:
            raise missing from None
        for shard in sorted(set(read_json(file).get("weight_map", {}).values())):
            download(name, shard)
    for other in BESIDE:
        with suppress(ValueError):  # not all have all
            download(name, other)
    return file


def download(name: str, file: str) -> Path:
    """A file of a repository of the hub, in its cache. Raises ValueError where it is not to be had."""
    from huggingface_hub import constants, hf_hub_download  # only a download needs it
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    repository = repository_of(name)
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # nothing of what it tries again: in the end one message says it
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # each version of the hub client raises the errors of another HTTP library
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        why = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        said = f"{type(why).__name__}: {next(iter(str(why).strip().splitlines()), '')}"
        if isinstance(error, GatedRepoError):
            raise ValueError(
                f"{name!r} is gated: ask for it at https://huggingface.co/{repository}, then sign in with `hf auth "
                f"login` and try again ({said})"
            ) from error
        if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
            raise ValueError(
                f"{name!r} is no file here, and the hub does not hand out {file} of {repository!r} ({said}): check the "
                f"name, or give a .safetensors file"
            ) from error
        raise ValueError(
            f"{name!r} is no file here, and the hub could not be reached for {file} of {repository!r} ({said}): give "
            f"a .safetensors file, or bring what another machine downloaded into {constants.HF_HUB_CACHE} and set "
            f"HF_HUB_OFFLINE=1"
        ) from error
    finally:
        logger.setLevel(level)
