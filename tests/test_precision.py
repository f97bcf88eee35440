"""Which precision the processor is given, and models in it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from small_sets import command, write_videos
from tiny import FAMILIES, TOKENISERS, clip_for, tiny

from tubelet import ClipSpec, Predictor, Streamer, save
from tubelet.predict.precision import cast_encoders, choose_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CLOSE = 0.05  # of the largest value: a tiny model's error in bfloat16 is 0.01 to 0.02


def set_gates(monkeypatch: pytest.MonkeyPatch, *has: str) -> None:
    """Only the choice believes it: the kernels are those that the processor really has."""
    monkeypatch.setattr("tubelet.predict.precision.bfloat16_instructions", lambda: list(has))


# ---- the choice


@pytest.mark.parametrize(
    ("has", "dtype", "reason"),
    [
        ((), torch.float32, "float32: this processor has no avx512_bf16 and no AMX"),
        (("avx512_bf16",), torch.bfloat16, "bfloat16: this processor has avx512_bf16"),
        (("AMX",), torch.bfloat16, "bfloat16: this processor has AMX"),
        (("avx512_bf16", "AMX"), torch.bfloat16, "bfloat16: this processor has avx512_bf16"),
    ],
)
def test_auto_asks_the_processor(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], dtype: torch.dtype, reason: str
) -> None:
    set_gates(monkeypatch, *has)
    assert choose_dtype("auto", CPU) == (dtype, reason)


@pytest.mark.parametrize("has", [True, False])
def test_auto_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    expected = (torch.bfloat16, "bfloat16: this GPU has it") if has else (torch.float32, "float32: this GPU has no bf")
    dtype, reason = choose_dtype("auto", GPU)
    assert dtype == expected[0]
    assert reason.startswith(expected[1])
    assert choose_dtype("float16", GPU) == (torch.float16, "float16")


def test_what_is_told_is_done_and_a_slow_one_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gates(monkeypatch)
    assert choose_dtype("float32", CPU) == (torch.float32, "float32")
    dtype, reason = choose_dtype("bfloat16", CPU)
    assert dtype == torch.bfloat16
    assert reason == "bfloat16, though this processor has no avx512_bf16 and no AMX: it may be very slow"
    set_gates(monkeypatch, "AMX")
    assert choose_dtype("bfloat16", CPU) == (torch.bfloat16, "bfloat16")
    assert choose_dtype("auto", torch.device("mps")) == (torch.float32, "float32: bfloat16 is untested on mps")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_float16_is_for_gpus(device: str) -> None:
    with pytest.raises(ValueError, match=naming("float16", device, "auto")):
        choose_dtype("float16", torch.device(device))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=naming("dtype", "'int4'", "auto", "float32", "bfloat16", "float16")):
        choose_dtype("int4", CPU)


# ---- models in it


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_bfloat16_answers_as_float32_does(family: str) -> None:
    model = tiny(family)
    ready = cast_encoders(model, torch.bfloat16)
    clip = clip_for(model)
    for given in (clip, (128 + 40 * clip).clamp(0, 255).to(torch.uint8)):
        for run in ("__call__", "features"):
            exact, found = getattr(model, run)(given), getattr(ready, run)(given)
            assert found.dtype == torch.float32
            assert not torch.equal(found, exact)
            assert (found - exact).abs().max() < CLOSE * exact.abs().max()


@pytest.mark.parametrize("settings", [*TOKENISERS.values(), {"pad": "mean"}], ids=str)
@torch.inference_mode()
def test_every_tokeniser_takes_bytes_and_floats(settings: dict[str, Any]) -> None:
    model = tiny("vivit2", **settings)
    ready = cast_encoders(model, torch.bfloat16)
    size = (7, 9, 11) if "pad" in settings else model.input_size
    for clip in (torch.randn(2, 3, *size), torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)):
        exact = model(clip)
        assert (ready(clip) - exact).abs().max() < CLOSE * exact.abs().max()


def test_products_are_in_bfloat16_and_pixels_are_not_shifted() -> None:
    model = tiny("vivit2", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    ready, seen = cast_encoders(model, torch.bfloat16), set()
    for module in ready.modules():
        if isinstance(module, torch.nn.Linear) and module is not ready.head:
            module.register_forward_hook(lambda module, given, made: seen.add((given[0].dtype, made.dtype)))
    ready(clip_for(model))
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    assert torch.equal(ready.mean, model.mean)
    assert torch.equal(ready.std, model.std)
    assert torch.equal(ready.head.weight, model.head.weight)


def test_the_model_given_stays_as_it_is() -> None:
    model = tiny("vivit1")
    before, clip = {name: value.clone() for name, value in model.state_dict().items()}, clip_for(model)
    answer = model(clip)
    cast_encoders(model, torch.bfloat16)(clip)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(clip), answer)
    assert cast_encoders(model, torch.float32) is model


def test_a_stream_in_bfloat16_answers_as_its_model() -> None:
    model = tiny("vivit2")
    ready, clip = cast_encoders(model, torch.bfloat16), clip_for(model, 1)
    (first, logits), *rest = Streamer(ready, window=8, hop=2).push(clip[0])
    assert (first, rest, logits.dtype) == (0, [], torch.float32)
    torch.testing.assert_close(logits, ready(clip)[0], atol=CLOSE, rtol=0)


# ---- predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = ClipSpec(
        frames=4, seconds_between_frames=0.08, resize=(32, 40), crop=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    model = tiny("vivit2", clip=(4, 32, 32), patch=(2, 16, 16), num_classes=2)
    folder = tmp_path_factory.mktemp("run")
    save(model, folder, about={"classes": ["bright", "dark"], "clip_spec": spec.to_json()})
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"), 1)


def test_a_predictor_in_bfloat16(monkeypatch: pytest.MonkeyPatch, run: Path, videos: Path) -> None:
    set_gates(monkeypatch, "AMX")
    exact, found = (Predictor.load(run, device="cpu", dtype=dtype) for dtype in ("float32", "auto"))
    assert (exact.precision, found.precision) == ("float32", "bfloat16: this processor has AMX")
    for file in sorted(videos.rglob("*.mp4")):
        a, b = (one.predict(file).probabilities for one in (exact, found))
        assert a["dark"] == pytest.approx(b["dark"], abs=0.02)
        assert a["dark"] != b["dark"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict"], "in bfloat16: this processor has AMX"),
        (["predict", "--json"], "in bfloat16: this processor has AMX"),
        (["predict", "--dtype", "float32"], "in float32"),
        (["eval"], "in float32"),
        (["eval", "--dtype", "auto"], "in bfloat16: this processor has AMX"),
    ],
)
def test_the_command_line_says_what_it_computes_in(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    videos: Path,
    arguments: list[str],
    words: str,
) -> None:
    set_gates(monkeypatch, "AMX")
    verb, *rest = arguments
    assert command(verb, run, videos, "--device", "cpu", *rest) == 0
    shown = capsys.readouterr()
    assert f"tubelet: {words}\n" in shown.err
    assert "AMX" not in shown.out


def test_the_command_line_refuses_float16_on_a_processor(
    capsys: pytest.CaptureFixture[str], run: Path, videos: Path
) -> None:
    assert command("predict", run, videos, "--device", "cpu", "--dtype", "float16") == 2
    assert re.search(naming("float16", "cpu"), capsys.readouterr().err)
