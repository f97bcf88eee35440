"""What is measured and what is made of it; never how long it takes."""

import json
import math

import pytest
import torch
from naming import naming
from small_sets import command
from tiny import clip_for, tiny

from tubelet import bench as bench_room
from tubelet.bench import (
    CLIPS,
    Measure,
    bench,
    choose_dtypes,
    make_row,
    passes,
    print_bench,
    roof,
    streaming,
    tokeniser,
    training_step,
)
from tubelet.bench import choose_clip as clip_that_fits
from tubelet.nn.cost import describe
from tubelet.system import timing
from tubelet.system.console import console
from tubelet.system.timing import time_in_turns

CPU = torch.device("cpu")


@pytest.fixture
def small_roof(monkeypatch):
    monkeypatch.setattr(bench_room, "ROOF", 16)


@pytest.fixture
def clock(monkeypatch):
    """A clock that jobs turn by hand."""
    now = [0.0]
    monkeypatch.setattr(timing, "now", lambda: now[0])
    return now


# ---- times


def test_jobs_take_turns_after_a_first_time_that_does_not_count(clock):
    order, told = [], []

    def job(name, *seconds):
        left = list(seconds)

        def run():
            order.append(name)
            clock[0] += left.pop(0)

        return run

    jobs = {"a": job("a", 9, 1, 2), "b": job("b", 8, 3, 4)}
    took = time_in_turns(jobs, runs=2, after=lambda name, seconds: told.append((name, seconds)))
    assert took == {"a": [1, 2], "b": [3, 4]}
    assert order == ["a", "b"] * 3
    assert told == [("a", 9), ("b", 8), ("a", 1), ("b", 3), ("a", 2), ("b", 4)]


@pytest.mark.parametrize(("seconds", "turns"), [(0, 3), (4, 3), (5, 3), (6.5, 5), (20, 18)])
def test_turns_go_on_while_another_one_fits_the_time(seconds, turns, clock):
    def job():
        clock[0] += 1

    assert len(time_in_turns({"": job}, runs=3, seconds=seconds)[""]) == turns


# ---- rows


def test_what_is_possible_is_made_of_other_medians():
    measure = Measure(
        what="a", job=lambda: None, least={"b": 2, "c": 0.5}, why="so", says=lambda seconds: f"{seconds['c']} s"
    )
    row = make_row(measure, {"a": [20.0, 10.0, 40.0], "b": [3.0, 1.0, 2.0], "c": [4.0, 4.0, 9.0]})
    assert (row["seconds"], row["median_seconds"]) == ([20.0, 10.0, 40.0], 20.0)
    assert (row["least_seconds"], row["reached"], row["says"]) == (6.0, 0.3, "4.0 s")
    roof = make_row(Measure(what="a", job=lambda: None), {"a": [1.0]})
    assert (roof["least_seconds"], roof["reached"]) == (None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_least_of_a_pass_is_its_multiplications_at_the_speed_of_the_large_product(dtype):
    model = tiny("vivit2")
    gmacs = describe(model).gmacs
    forward, step = passes(model, 3, dtype)
    assert forward.least == {roof(dtype, CPU).what: pytest.approx(3 * gmacs * 1e9 / 2048**3)}
    assert step.least == {roof(dtype, CPU).what: pytest.approx(9 * gmacs * 1e9 / 2048**3)}
    first = tokeniser(model, 3, [dtype])
    assert first.least.keys() == ({roof(dtype, CPU).what} if dtype == torch.float32 else set())
    for measure in (first, forward, step):
        measure.job()


def test_streaming_is_measured_where_steps_are_encoded_apart():
    model = tiny("vivit2", clip=(32, 8, 12))
    anew, one, four = streaming(model)
    [share], [more] = one.least.values(), four.least.values()
    assert 1 / 16 < share < more < 1
    assert math.isclose(share, 1 - (1 - more) * 15 / 12)  # of 16 steps 15, of which 12, are not encoded again
    assert list(one.least) == [anew.what]
    for measure in (anew, one, four):
        measure.job()
    [(_, logits)] = four.job()
    assert logits.shape == (5,)
    assert streaming(tiny("vivit1")) == []


def test_a_step_of_training_ends_without_gradients_and_leaves_the_model():
    model = tiny("vivit2")
    before = [parameter.clone() for parameter in model.parameters()]
    training_step(model, clip_for(model), torch.bfloat16)()
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- the command


@pytest.mark.parametrize(("seconds", "clip"), [(1e-9, CLIPS[0]), (3e-7, CLIPS[1]), (1.0, CLIPS[2])])
def test_a_slow_machine_gets_a_smaller_clip(seconds, clip, clock, small_roof):
    def roof():
        clock[0] += seconds

    assert clip_that_fits("vivit2-S/16x2", roof, 1, 1.0) == clip


def test_images_and_unknown_names_are_left_to_the_model():
    assert clip_that_fits("vit-Ti/16", lambda: None, 1, 1.0) is None
    assert clip_that_fits("nonsense", lambda: None, 1, 1.0) is None


def test_auto_is_every_dtype_that_the_processor_has(monkeypatch):
    monkeypatch.setattr(bench_room, "has_bfloat16", lambda device: (False, ""))
    assert choose_dtypes("auto", CPU) == [torch.float32]
    monkeypatch.setattr(bench_room, "has_bfloat16", lambda device: (True, ""))
    assert choose_dtypes("auto", CPU) == [torch.float32, torch.bfloat16]
    assert choose_dtypes("bfloat16", CPU) == [torch.bfloat16]


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({"batch": 0}, ("--batch 0", "--minutes 0.8", 1, 0)),
        ({"minutes": 0}, ("--batch 1", "--minutes 0")),
        ({"dtype": "float16"}, ("float16", "cpu")),
        ({"dtype": "int4"}, ("dtype", "'int4'")),
        ({"clip": (4, 30, 32)}, ("H = 30",)),
    ],
)
def test_what_cannot_be_measured_is_refused(flags, values, small_roof):
    with pytest.raises(ValueError, match=naming(*values)):
        bench("vivit2-Ti/16x2", **flags)


@pytest.mark.parametrize("model", ["vivit2-Ti/16x2", "vit-Ti/16"])
def test_the_command_prints_one_object_for_machines(model, small_roof, monkeypatch, capsys):
    monkeypatch.setattr(bench_room, "TURNS", 1)
    clip = ["--clip", "1" if "vit-" in model else "4", "16", "32"]
    assert command("bench", model, *clip, "--minutes", "0.0001", "--dtype", "float32", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    whats = [measure["what"] for measure in found["measures"]]
    assert whats[:4] == ["large product, float32", "tokeniser", "forward, float32", "training, float32"]
    assert whats[4:] == ([] if "vit-" in model else ["window of 16 steps", "window, hop of 1", "window, hop of 4"])
    assert all(len(measure["seconds"]) == 1 for measure in found["measures"])
    assert found["machine"]["torch"] == torch.__version__
    assert found["model"].startswith(f"{model}, 1 clip of ")


@pytest.mark.parametrize("load", [0.1, 3.0, None])
def test_the_table_says_when_not_to_trust_it(load, monkeypatch):
    monkeypatch.setattr(console, "width", 80)
    machine = {"device": "AMD EPYC 9R14", "threads": 2, "load": load, "torch": "2.13.0+cpu"}
    product = Measure(what="large product, bfloat16", job=lambda: None, says=lambda seconds: "412 GFLOP/s")
    forward = Measure(what="forward, float32", job=lambda: None, least={product.what: 80}, why="products, alone")
    rows = [make_row(measure, {product.what: [0.0125], forward.what: [1.25]}) for measure in (product, forward)]
    with console.capture() as shown:
        print_bench({"model": "vivit2-S/16x2, 1 clip", "machine": machine, "measures": rows})
    text = shown.get()
    assert "1.25 s  1.00 s     80 %" in text
    assert "12.5 ms" in text
    assert "least: forward: products, alone" in text
    assert ("keep this machine busy" in text) == (load == 3.0)
