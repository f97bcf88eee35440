"""Compiled blocks: one program for all of a kind, the same answers and gradients, and nothing that looks into a model,
copies or spreads it notices. Backends that take a second stand in for the compiler proper, which two families meet."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sets import tiny_config, without_key_bias, write_videos
from teams import together
from tiny import blocks_of, clip_for, tiny, without_bias_dropout
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.testing import assert_close

from tubelet.nn import FAMILIES, SpaceTimeTransformer, Streamer
from tubelet.nn.compile import Compiler, compile_blocks, worth_compiling
from tubelet.relevance.explain import explain
from tubelet.train.plan import make_plan
from tubelet.train.train import train_fn
from tubelet.weights.store import load

# torch asks each tensor for its gradient, and hides the warning of it unless warnings are errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

SIZES = [(0, 0, 4), (0, 4, 0), (0, 8, 8), (8, 4, 8), (16, 0, 12)]  # px and frames more than a model's own clip
LIMIT = 8  # programs of one kind of block, for sizes and for what learns: torch._dynamo.config.recompile_limit


@pytest.fixture(autouse=True)
def compiler_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What it kept on the disk, too: a program made as on another processor (ATEN_CPU_CAPABILITY) gives NaN."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "programs"))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def compiled(model: SpaceTimeTransformer, backend: str = "aot_eager") -> CompileCounterWithBackend:
    """The programs that a model's blocks get from now on, counted."""
    counting = CompileCounterWithBackend(backend)
    compile_blocks(model, backend=counting, tell=pytest.fail)
    return counting


def learn(model: SpaceTimeTransformer, clip: Tensor, seed: int = 0) -> list[Tensor]:
    """Logits of a clip, and gradients in the order of the parameters that have one."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    logits = model(clip)
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


@pytest.mark.filterwarnings("ignore")  # of the compiler, of its own parts
def test_a_training_learns_by_compiled_blocks_what_it_learns_without(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "clips", clips=5)
    one, other = (train_fn(tiny_config(data, tmp_path / how, compile=how), show=False) for how in ("on", "off"))
    assert counters["stats"]["unique_graphs"] > 0
    weights, others = (without_key_bias(load(run).state_dict()) for run in (one, other))
    # AdamW makes a step of any size of what rounds to one side or the other
    off = {name: (value - others[name]).abs().mean().item() for name, value in weights.items()}
    assert max(off.values()) < 1e-5, off
    notes = [make_plan(tiny_config(data, tmp_path, compile=how), torch.device("cpu")).notes for how in ("on", "auto")]
    assert [any("--compile" in note for note in some) for some in notes] == [True, False]


@pytest.mark.filterwarnings("ignore")  # of the compiler, of its own parts
def test_a_training_goes_on_without_a_compiler_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda name: fail)
    data = write_videos(tmp_path / "clips", clips=5)
    run = train_fn(tiny_config(data, tmp_path / "run", compile="on"), show=False)
    assert load(run)
    assert capsys.readouterr().out.count("no compiler here") == 1


def count_kinds(model: SpaceTimeTransformer) -> int:
    return len({name.rpartition(".")[0] for name in blocks_of(model)})


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_a_kind_share_a_program_and_answer_as_before(family: str) -> None:
    model = without_bias_dropout(tiny(family, **({"depths": (4, 2)} if family == "swin2" else {"depth": 4})))
    clip, names = clip_for(model), list(model.state_dict())
    before, wanted = model(clip).detach(), learn(model.train(), clip)
    programs = compiled(model.eval())
    assert_close(model(clip), before, rtol=1e-5, atol=1e-5)
    # windows that are shifted are another program than windows at the edge
    kinds = count_kinds(model) * (2 if family == "swin2" else 1)
    assert programs.frame_count == kinds < len(blocks_of(model))
    assert_same(learn(model.train(), clip), wanted)
    assert programs.frame_count == 2 * kinds
    assert_same(learn(model, clip), wanted)
    assert programs.frame_count == 2 * kinds
    assert not counters["graph_break"]
    assert list(model.state_dict()) == names


@pytest.mark.filterwarnings("ignore")  # of the compiler, of its own parts
@pytest.mark.parametrize("family", ["vivit1", "dinov3"])
def test_the_compiler_proper_gives_the_same(family: str) -> None:
    model = tiny(family, depth=3).train()
    clip = clip_for(model)
    wanted, programs = learn(model, clip), compiled(model, "inductor")
    assert_same(learn(model, clip), wanted)
    assert programs.frame_count == 1


@pytest.mark.parametrize("family", ["vivit2", "vivit3", "vjepa2", "videoprism", "swin2"])
def test_sizes_that_vary_need_no_program_each(family: str) -> None:
    model = tiny(family)
    plain, programs = copy.deepcopy(model), compiled(model, "eager")
    with torch.no_grad():
        for more in SIZES:
            size = [own + extra for own, extra in zip(model.input_size, more, strict=True)]
            for batch in (2, 3, 4):
                clip = torch.randn(batch, model.config.channels, *size)
                assert_close(model(clip), plain(clip), rtol=1e-5, atol=1e-5)
    assert programs.frame_count <= LIMIT * count_kinds(model) < len(SIZES) * 3 * len(blocks_of(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_looks_into_a_model_finds_it_as_it_was(family: str) -> None:
    model = tiny(family)
    clip, plain = clip_for(model), copy.deepcopy(model)
    programs = compiled(model, "eager")
    model(clip)
    before = programs.frame_count
    assert torch.equal(explain(model, clip), explain(plain, clip))
    for found, wanted in zip(model.block_features(clip), plain.block_features(clip), strict=True):
        assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert programs.frame_count == before
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(block.program is None for block in blocks_of(other).values())
        assert torch.equal(other(clip), plain(clip))
    assert programs.frame_count == before


@pytest.mark.parametrize("family", ["vivit1", "vivit2", "swin2"])
def test_a_stream_of_a_compiled_model_answers_as_before(family: str) -> None:
    model, frames = tiny(family), torch.randn(3, 18, 8, 12)
    plain = copy.deepcopy(model)
    compiled(model, "eager")

    def answers(model: SpaceTimeTransformer) -> list[Any]:
        streamer = Streamer(model, window=8, hop=2)
        return [*(one for part in frames.split([3, 9, 6], 1) for one in streamer.push(part)), *streamer.finish()]

    found, wanted = answers(model), answers(plain)
    assert [frame for frame, _ in found] == [frame for frame, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_blocks_that_are_dropped_more_and_more_often_share_programs() -> None:
    model = tiny("vivit1", depth=6, drop_path=0.3).train()
    clip, programs = clip_for(model), compiled(model)
    first = learn(model, clip)
    assert programs.frame_count <= 3  # never, at one rate, at any
    assert_same(learn(model, clip), first)
    assert not torch.equal(learn(model, clip, seed=1)[0], first[0])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activations_computed_twice_are_the_same_twice(dropout: float) -> None:
    model = tiny("vivit1", dropout=dropout).train()
    clip = clip_for(model)
    compiled(model)
    kept = learn(model, clip)
    for block in blocks_of(model).values():
        block.checkpointing = True  # type: ignore[assignment]  # of blocks
    assert_same(learn(model, clip), kept)


def refuse(*_: Any) -> Any:
    raise RuntimeError("nothing here compiles\nfor a reason of three lines\nthat nobody reads")


def plain_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    return graph.forward


@pytest.mark.parametrize(
    "backend",
    [
        refuse,
        aot_autograd(fw_compiler=refuse, bw_compiler=plain_graph),
        aot_autograd(fw_compiler=plain_graph, bw_compiler=refuse),
        "no-such-compiler",
    ],
    ids=["all", "forward", "backward", "missing"],
)
def test_a_compiler_that_fails_is_told_once_and_nothing_is_lost(backend: Any) -> None:
    model = tiny("vivit2").train()
    clip, told = clip_for(model), list[str]()
    wanted = learn(model, clip)
    compile_blocks(model, backend=backend, tell=told.append)
    for _ in range(2):
        assert_same(learn(model, clip), wanted)
    assert_close(model.eval()(clip), wanted[0], rtol=1e-5, atol=1e-5)
    (sentence,) = told
    assert "\n" not in sentence
    assert ("nothing here compiles" in sentence) == (backend != "no-such-compiler")


def test_a_compiler_that_failed_is_not_asked_again() -> None:
    asked = list[str]()

    def refuse_once_asked(graph: Any, inputs: Any) -> Any:
        asked.append("")
        return refuse()

    model = tiny("vivit2")
    compile_blocks(model, backend=refuse_once_asked, tell=lambda _: None)
    model(clip_for(model))
    assert len(asked) == 1
    assert not Compiler("eager", print).failed


SPREAD = """
import copy, sys, torch, warnings
from tiny import clip_for, tiny
from torch._dynamo.testing import CompileCounterWithBackend
from tubelet.nn.compile import compile_blocks
from tubelet.system.team import Team
from tubelet.train.trainer import whole_weights, wrap

warnings.simplefilter("ignore")
team = Team.join("cpu")
for shard in ("none", "fsdp2"):
    model, counting = tiny("vivit2").train(), CompileCounterWithBackend("eager")
    plain = wrap(copy.deepcopy(model), team, shard)
    compile_blocks(model, backend=counting, tell=sys.exit)
    spread, clip = wrap(model, team, shard), clip_for(model)
    ends = []
    for one in (plain, spread):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            one(clip + team.rank).square().mean().backward()
            optimizer.step()
        ends.append(whole_weights(one))
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-5, atol=1e-5, msg=name)
    print(shard, counting.frame_count)
"""


def test_a_model_that_is_spread_over_processes_is_compiled_all_the_same() -> None:
    ends = together(["-c", SPREAD])
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    assert ends[0].stdout == "none 2\nfsdp2 2\n"  # a program for each encoder


def test_compilation_pays_on_a_gpu_in_a_training_that_is_long_enough() -> None:
    assert worth_compiling(torch.device("cuda"), 900)
    assert not worth_compiling(torch.device("cuda"), 60)
    assert not worth_compiling(torch.device("cpu"), 9000)
    assert not worth_compiling(torch.device("mps"), 9000)
