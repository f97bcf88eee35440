"""Does a video model that starts from your image ViT see what the image ViT sees? On real weights, at your own size.

    python benchmarks/real_image_vit.py vit_small_patch14.safetensors --clip 8 126 224

The file has timm's names and a square position table. Prints, for each kind of video model, how far its tokens are from
those of the image model on the frames that they stand for: the norm of the difference over the norm of the tokens.
Where patches are resized, each frame's patches are enlarged one by one, and the image model sees them as they were.
"""

import argparse

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tubelet import SpaceTimeTransformer, init_from_image, model_config
from tubelet.nn import SIZES
from tubelet.weights import from_reference
from tubelet.weights.init.image_weights import image_shape


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--clip", type=int, nargs=3, default=(8, 224, 224), metavar=("T", "H", "W"))
    arguments = parser.parse_args()
    state, (dim, depth, side) = load_file(arguments.weights), image_shape(arguments.weights)
    size, heads = next((name, heads) for name, (d, n, heads) in SIZES.items() if (d, n) == (dim, depth))
    native = side * int(state["pos_embed"].shape[1] ** 0.5)
    image = from_reference(state, "timm", heads=heads, clip=(1, native, native))
    frames, h, w = arguments.clip
    clip = F.interpolate(torch.randn(1, 3, frames, h // 8, w // 8), (frames, h, w), mode="trilinear")
    wanted = torch.stack([image.tokens(clip[:, :, i : i + 1])[0] for i in range(1, frames, 2)], 1)
    print("| model | sees what the image model sees | difference |\n|---|---|---|")

    def video(family: str, to_side: int, length: int) -> SpaceTimeTransformer:
        shape = (length, h // side * to_side, w // side * to_side)
        config = model_config(f"{family}-{size}/{to_side}x2", clip=shape, num_classes=0)
        model = SpaceTimeTransformer(config.with_stage(0, prefix=image.stack[0].prefix_size))
        init_from_image(model, state, resize_patch=True)
        return model.eval()

    for family in ("vivit1", "vidtrans", "timesformer"):
        tokens, _ = video(family, side, 2).tokens(clip[:, :, :2])
        print(f"| {family} | on one tubelet | {difference(tokens, wanted[:, 0]):.1e} |")
    still = clip[:, :, 1:2].expand(-1, -1, frames, -1, -1)
    tokens = by_step(video("timesformer", side, frames), still)
    print(f"| timesformer | on a still clip | {difference(tokens, wanted[:, :1].expand_as(tokens)):.1e} |")
    print(f"| vivit2 | at each step | {difference(by_step(video('vivit2', side, frames), clip), wanted):.1e} |")
    for to_side in (side + 2, 2 * side):
        tokens = by_step(video("vivit2", to_side, frames), enlarged(clip, side, to_side))
        print(f"| vivit2, {to_side} px patches | at each step | {difference(tokens, wanted):.1e} |")


def by_step(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    """Tokens of each time step, (B, t, P + N, D); with vivit2 the prefix is that of the step, else of the clip."""
    x, grid = model.embed_clip(clip)
    first = model.encoders[0]
    if first.over == "hw":
        return first.encode(x.reshape(grid.t, -1, x.shape[2]), grid.along("hw"))[None]
    tokens, _ = first.tokens(x, grid)
    prefix = tokens.shape[1] - grid.size
    steps = tokens[:, prefix:].unflatten(1, (grid.t, -1))
    return torch.cat([tokens[:, None, :prefix].expand(-1, grid.t, -1, -1), steps], 2)


def enlarged(clip: Tensor, side: int, to_side: int) -> Tensor:
    """Each patch of each frame enlarged by itself, bicubic."""
    frames = clip[0].transpose(0, 1)
    patches = F.unfold(frames, side, stride=side).unflatten(1, (3, side, side)).permute(0, 4, 1, 2, 3)
    patches = F.interpolate(patches.flatten(0, 1), (to_side, to_side), mode="bicubic", antialias=True)
    patches = patches.unflatten(0, (frames.shape[0], -1)).permute(0, 2, 3, 4, 1).flatten(1, 3)
    shape = (frames.shape[2] // side * to_side, frames.shape[3] // side * to_side)
    return F.fold(patches, shape, to_side, stride=to_side).transpose(0, 1)[None]


def difference(tokens: Tensor, wanted: Tensor) -> float:
    return float((tokens - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    main()
