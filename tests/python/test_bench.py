"""`vila-engine bench`: its counts against numbers worked out by hand, its report, and what it refuses."""

from __future__ import annotations

import builtins
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vila_engine
from random_checkpoint import SHAPES
from vila_engine import _core, cli
from vila_engine._core import InvalidArgument
from vila_engine.bench import machine, runner
from vila_engine.bench.folder import matrix_formats_of, tokenizer_spec, write_model
from vila_engine.bench.limits import Limits, ModelWork, Work
from vila_engine.bench.phases import PHASES, Measured, Meter, Reading
from vila_engine.bench.presets import PRESETS, preset_config, source_of
from vila_engine.bench.prompts import Prompts
from vila_engine.bench.runner import Options, run_bench
from vila_engine.convert.plan import plan_entries

# 10 bytes, 4 integer and 2 float multiply-adds per second.
SLOW = Limits(10.0, 4.0, 2.0)
# One layer, two heads of four columns, one of them for keys and values; a tower of one layer on four patches.
SMALL: dict[str, Any] = {
    "llm": {
        "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "ffn_dim": 16, "vocab_size": 32,
        "attention_bias": False, "mlp_bias": False,
    },
    "vision": {
        "kind": "siglip", "dim": 4, "n_layers": 1, "n_heads": 1, "ffn_dim": 8, "image_size": 4, "patch_size": 2,
        "qk_norm": False, "drop_class_token": False,
    },
    "s2": None,
    "projector": {"kind": "mlp_downsample", "in_dim": 4, "out_dim": 8, "depth": 2},
    "image": {}, "video": {},
}  # fmt: skip
LLM_BLOCK_MACS = 8 * 8 + 2 * 4 * 8 + 8 * 8 + 3 * 16 * 8  # q, k and v, o, MLP
KEY_VALUE_MACS = 2 * 4 * 8
HEAD_MACS = 32 * 8


def counts(config: dict[str, Any], form: str = "f16p16") -> ModelWork:
    """Work of a configuration whose matrices all have one format."""
    return ModelWork(config, dict.fromkeys(names_of(config), form), 12345)


def names_of(config: dict[str, Any]) -> list[str]:
    return [entry.name for entry in plan_entries(source_of(config)) if entry.kind == "matrix"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny-int4"
    write_model("tiny", path)
    return path


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Takes the place of measuring the machine; collects what was asked."""
    asked: list[tuple[str, int]] = []

    def measure(*, isa: str, threads: int) -> dict[str, float]:
        asked.append((isa, threads))
        rate = 1e9 * len(asked)
        return {
            "read_bytes_per_second": rate, "dot_macs_per_second": 4 * rate, "fma_macs_per_second": 2 * rate,
            "huge_page_bytes": 0,
        }  # fmt: skip

    monkeypatch.setattr(_core, "measure_limits", measure)
    return asked


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = cli.main(["bench", *map(str, arguments)])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_shortest_time_is_that_of_memory_or_arithmetic() -> None:
    work = Work(n_bytes=20, dot_macs=4, fma_macs=1)
    assert work.memory_seconds(SLOW) == 2.0
    assert work.compute_seconds(SLOW) == 1.5
    assert (work.seconds(SLOW), work.bound(SLOW)) == (2.0, "memory")
    work += Work(dot_macs=8)
    assert (work.seconds(SLOW), work.bound(SLOW)) == (3.5, "compute")
    assert SLOW.best(Limits(5.0, 9.0, 1.0, 7)) == Limits(10.0, 9.0, 2.0, 7)


def test_shares_of_times_and_rates() -> None:
    tasks = [Work(n_bytes=20), Work(dot_macs=12)]  # 2 s and 3 s, one after the other
    time = Measured("first_token", "seconds", [Reading(value, SLOW) for value in (8.0, 10.0, 40.0)], tasks)
    assert (time.median, time.limit, time.shares) == (10.0, 5.0, [0.625, 0.5, 0.125])
    twice = Limits(20.0, 8.0, 4.0)  # the machine's other mood
    readings = [Reading(1.0, SLOW), Reading(4.0, twice), Reading(3.0, SLOW)]
    rate = Measured("prefill", "tokens_per_second", readings, tasks, tokens=20)
    assert (rate.median, rate.limits, rate.limit) == (3.0, [4.0, 8.0, 4.0], 4.0)
    assert (rate.shares, rate.bound) == ([0.25, 0.5, 0.75], "compute")


def test_a_repetition_stands_between_two_measurements_of_the_limits() -> None:
    order: list[str] = []
    speeds = iter([Limits(9.0, 1.0, 1.0), Limits(1.0, 2.0, 1.0), Limits(5.0, 1.0, 1.0)])

    def measure() -> Limits:
        order.append("limits")
        return next(speeds)

    def once() -> float:
        order.append("task")
        return float(len(order))

    meter = Meter(measure, 2, lambda label, done, total: order.append(f"{label} {done}/{total}"))
    readings = meter.repeat("x", once)
    assert order == ["x 0/3", "task", "limits", "x 1/3", "task", "limits", "x 2/3", "task", "limits"]
    assert readings == [Reading(5.0, Limits(9.0, 2.0, 1.0)), Reading(8.0, Limits(5.0, 2.0, 1.0))]
    assert meter.best == Limits(9.0, 2.0, 1.0)


def test_decode_reads_all_matrices_and_the_cache() -> None:
    work = counts(SMALL).decode(100)
    # q, k, v and o have 16 rows with padding, as have gate, up and down; the head has 32.
    weights = 2 * (16 * 8 * 4 + 2 * 16 * 8 + 16 * 16 + 32 * 8)
    assert work.n_bytes == weights + 2 * 1 * 4 * 2 * 100
    assert work.dot_macs == 0
    assert work.fma_macs == LLM_BLOCK_MACS + HEAD_MACS + 2 * 2 * 4 * 101
    assert ModelWork(SMALL, dict.fromkeys(names_of(SMALL), "f16p16"), 1, "f32").decode(100).n_bytes == weights + 3200
    # int8: four columns and a scale of four bytes for the key and for the value
    int8 = ModelWork(SMALL, dict.fromkeys(names_of(SMALL), "f16p16"), 1, "int8")
    assert int8.decode(100).n_bytes == weights + 2 * (4 + 4) * 100


def test_int4_counts_scales_and_zero_points() -> None:
    config = preset_config("tiny")
    work = counts(config, "w4p16x8g32z").decode(0)
    n_weights = 2 * (4 * 64 * 64) + 2 * (2 * 176 * 64) + 512 * 64  # per layer: attention, gate and up; the head
    n_down = 2 * 64 * 192  # 176 columns are padded to groups of 32
    groups = (n_weights + n_down) / 32
    assert work.n_bytes == (n_weights + n_down) / 2 + groups * (2 + 1)
    assert work.fma_macs == 2 * 2 * 64  # attention over itself
    assert work.dot_macs == n_weights + 2 * 64 * 176


def test_prefill_counts_causal_pairs_and_one_row_behind_the_last_keys() -> None:
    model = counts({**SMALL, "llm": {**SMALL["llm"], "n_layers": 2}})
    linear = 3 * LLM_BLOCK_MACS + 3 * KEY_VALUE_MACS + (LLM_BLOCK_MACS - KEY_VALUE_MACS) + HEAD_MACS
    # Rows 0, 1, 2 see 1, 2, 3 positions; after 5 cached ones 6, 7, 8. In the last block only row 2 looks.
    assert model.prefill(3).fma_macs == linear + 2 * 2 * 4 * (6 + 3)
    assert model.prefill(3, 5).fma_macs == linear + 2 * 2 * 4 * (21 + 8)
    assert model.prefill(3).n_bytes == model.decode(0).n_bytes


def test_vision_counts_tower_and_projector() -> None:
    patch, block, attention = 4 * 4 * 12, 4 * (4 * 4 * 4) + 2 * (4 * 4 * 8), 2 * 4 * 4 * 4  # four patches of 2 x 2 x 3
    projector = 8 * 16 + 8 * 8  # one token
    model = counts(SMALL)
    assert (model.patches, model.tiles, model.tokens_per_image) == (4, 1, 1)
    assert model.vision().fma_macs == patch + block + attention + projector
    scales = SMALL | {"s2": {"scales": [4, 8], "max_split": 4}}
    scales["projector"] = SMALL["projector"] | {"in_dim": 8}
    model = counts(scales)
    assert model.tiles == 5
    assert model.vision().fma_macs == 5 * (patch + block + attention) + 8 * 32 + 8 * 8
    assert counts(SMALL, "w8p16x4g32").vision().dot_macs == patch + block + projector
    assert counts(SMALL, "w8p16x4g32").vision().fma_macs == attention


def test_a_class_token_passes_the_tower() -> None:
    config = SMALL | {"vision": SMALL["vision"] | {"kind": "intern_vit", "drop_class_token": True}}
    block, attention = 5 * (3 * 16 + 16 + 2 * 32), 2 * 4 * 5 * 5
    assert counts(config).vision().fma_macs == 4 * 4 * 12 + block + attention + 8 * 16 + 8 * 8
    plain = {"kind": "linear", "in_dim": 4, "out_dim": 8, "depth": 1}
    assert counts(config | {"projector": plain}).tokens_per_image == 4
    config["vision"] = config["vision"] | {"drop_class_token": False}
    assert counts(config | {"projector": plain}).tokens_per_image == 5


def test_counts_of_the_3b_are_the_published_ones() -> None:
    """Sheared-LLaMA-2.7B: 2.70e9 weights, 82e6 of them the embedding; SigLIP so400m: 22.2e9 a block's rows."""
    config = preset_config("3b")
    model = counts(config, "w4p16x8g128")
    assert model.decode(0).dot_macs == 32 * (4 * 2560**2 + 3 * 2560 * 6912) + 32000 * 2560
    assert model.tokens_per_image == 196
    linear = 729 * (26 * (4 * 1152**2 + 2 * 1152 * 4304) + 1152 * 588) + 196 * (2560 * 4608 + 2560**2)
    assert model.vision().dot_macs == linear
    assert model.vision().fma_macs == 26 * 2 * 729**2 * 1152
    assert counts(preset_config("3b-s2"), "w4p16x8g128").tiles == 5


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_shapes_of_random_checkpoints(name: str) -> None:
    ours, theirs = PRESETS[name], SHAPES[name]
    llm = theirs.llm
    assert (ours.llm.dim, ours.llm.layers, ours.llm.heads, ours.llm.kv_heads, ours.llm.ffn, ours.llm.vocab) == (
        llm.dim, llm.layers, llm.heads, llm.kv_heads, llm.ffn, llm.vocab,
    )  # fmt: skip
    tower = theirs.vision
    assert (ours.tower.dim, ours.tower.heads, ours.tower.ffn, ours.tower.image, ours.tower.patch) == (
        tower.dim, tower.heads, tower.ffn, tower.image, tower.patch,
    )  # fmt: skip
    assert ours.tower.layers == tower.layers + 1 + tower.select_layer
    assert (ours.llm.theta, ours.scales) == (llm.theta, theirs.scales)


def test_the_written_model_is_what_was_planned(tiny: Path) -> None:
    formats = matrix_formats_of(tiny)
    assert formats["llm.model.layers.1.mlp.up_proj"] == "w4p16x8g128z"
    assert formats["llm.lm_head"] == "w8p16x4g128"
    assert formats["projector.layers.2"] == "f16p16"
    with vila_engine.load(tiny) as model:
        assert model.info["source"] == "random-tiny"
        assert model.info["llm"]["vocab_size"] == model.tokenizer.vocab_size == 512
        config = json.loads((tiny / "config.json").read_text())
        work = ModelWork(config, formats, model.info["file_bytes"])
        assert work.tokens_per_image == model.info["vision"]["tokens_per_image"]
        assert work.load().n_bytes == (tiny / "model.safetensors").stat().st_size
        packed = sum(n for name, n in model.info["weight_bytes"].items() if "p16" in name)
        assert work.decode(0).n_bytes + work.vision().n_bytes == packed


@pytest.mark.parametrize("weights", ["f32", "f16", "int8"])
def test_every_weight_format_answers(weights: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_model("tiny", tmp_path / "model", weights=weights, progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1][0] <= told[-1][1] <= told[-1][0] + 65536  # all but the header
    with vila_engine.load(tmp_path / "model") as model:
        result = model.generate("a x", max_new_tokens=3, ignore_eos=True)
        assert result.usage.completion_tokens == 3


def test_prompts_have_the_length_that_was_asked_for(tiny: Path) -> None:
    with vila_engine.load(tiny, conv_mode="plain") as model:
        prompts = Prompts(model)
        assert prompts.n_cached == 1  # <s>
        texts = [prompts.text(n) for n in (1, 2, 60, 60, 511)]
        assert [len(model.prompt_ids(text)) for text in texts] == [2, 3, 61, 61, 512]
        firsts = {model.prompt_ids(prompts.text(9))[1] for _ in range(26)}
        assert len(firsts) > 20
        assert (prompts.picture(3, 2) != prompts.picture(3, 2)).any()
    spec = tokenizer_spec(32000)
    assert len(spec["pieces"]) == len(set(spec["pieces"])) == 32000


def test_a_whole_benchmark(capsys: pytest.CaptureFixture[str], limits: list[tuple[str, int]]) -> None:
    status, out, err = bench(
        capsys, "--preset", "tiny", "--json", "--repeats", 3, "--threads", 1, 2, "--isa", "scalar",
        "--prompt-tokens", 8, 32, "--contexts", 24, 4096,
    )  # fmt: skip
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert set(report) == {"results", "machine", "model", "notes"}
    labels = [(result["phase"], result["threads"]) for result in report["results"]]
    one = ["load", "vision", "prefill", "prefill", "decode", "first_token"]
    assert labels == [(phase, threads) for threads in (1, 2) for phase in one]
    for result in report["results"]:
        assert result["isa"] == "scalar"
        assert len(result["values"]) == 3
        assert 0 < result["min"] <= result["median"] <= result["max"]
        assert result[result["unit"]] == result["median"] == sorted(result["values"])[1]
        assert result["limit"] > 0
        assert result["share_of_limit"] == sorted(result["shares"])[1] > 0
    by_phase = {result["phase"]: result for result in report["results"]}
    assert by_phase["decode"]["context"] == 24
    assert by_phase["decode"]["tokens_per_second"] > 0
    assert by_phase["prefill"]["prompt_tokens"] == 32
    assert by_phase["first_token"]["image_tokens"] == 4
    assert by_phase["load"]["peak_bytes"] > 1e6
    assert limits == [("scalar", 1)] * 24 + [("scalar", 2)] * 24  # before the first repetition of six and after each
    measured = report["machine"]["limits"]
    assert [limit["read_bytes_per_second"] for limit in measured] == [24e9, 48e9]  # the best of all measurements
    assert report["notes"] == ["decode 4096 left out: the model's context is 4096 tokens"]
    assert report["model"]["source"] == "random-tiny"
    assert report["machine"]["cores"] >= 1


def test_the_table_and_only_some_phases(capsys: pytest.CaptureFixture[str], limits: list[Any], tiny: Path) -> None:
    status, out, err = bench(capsys, tiny, "--only", "decode", "--contexts", 16, "--repeats", 1)
    assert (status, err) == (0, "")
    rows = out.partition("\n\n")[2].splitlines()
    assert rows[0].split() == ["phase", "isa", "threads", "median", "min", "max", "limit", "share", "bound", "by"]
    assert [row.split()[0] for row in rows[1:]] == ["decode"]
    assert len(limits) == 2
    assert "f16 cache of 0.5 kB a token" in out
    status, out, err = bench(
        capsys, tiny, "--only", "decode", "--contexts", 16, "--repeats", 1, "--kv-cache", "int8", "--json"
    )
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["model"]["kv_cache"], report["model"]["kv_cache_bytes_per_token"]) == ("int8", 2 * 2 * 2 * (32 + 4))
    assert len(limits) == 4
    only_load = run_bench(tiny, Options(phases=["load"], repeats=1, kv_cache="int8"))
    assert [result["phase"] for result in only_load["results"]] == ["load"]
    everywhere = run_bench(tiny, Options(phases=["vision"], repeats=1, isas=["all"], threads=[1]))
    assert [result["isa"] for result in everywhere["results"]] == machine.usable_isas()


def test_a_kept_model_is_used_again(
    capsys: pytest.CaptureFixture[str], limits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--preset", "tiny", "--only", "vision", "--repeats", 1, "--keep", tmp_path)
    assert bench(capsys, *options)[0] == 0
    folder = tmp_path / "tiny-int4"
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert bench(capsys, *options)[0] == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-int4"]
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], scales=(56, 112)))
    status, _, err = bench(capsys, *options)
    assert status == 2
    assert "expected the model of this preset, got another" in err


def test_a_temporary_model_is_removed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.tempfile, "tempdir", str(tmp_path))
    with runner.preset_folder("tiny", "int4", None, None, lambda *_: None) as folder:
        assert folder.is_relative_to(tmp_path)
        assert (folder / "model.safetensors").is_file()
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(KeyboardInterrupt),
        runner.preset_folder("tiny", "int4", None, None, lambda *_: None),
    ):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_cleanly(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_core, "measure_limits", interrupt)
    assert bench(capsys, "--preset", "tiny") == (130, "", "vila-engine: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "70b"), "invalid choice"),
        (("--only", "sleep"), "invalid choice"),
        (("MODEL", "--preset", "tiny"), "expected a model folder or a preset, got"),
        (("MODEL", "--weights", "int8", "--keep", "x"), "and --weights, --keep"),
        (("MODEL", "--repeats", "0"), "[bench] repeats: expected at least 1, got 0"),
        (("MODEL", "--threads", "2", "-1"), "[bench] threads: expected at least 1, got -1"),
        (("MODEL", "--isa", "sse9"), "sse9"),
        (("nowhere",), "nowhere"),
        (("MODEL", "--plot", "roof.pdf"), "expected a name that ends with .png"),
        (("MODEL", "--plot", "/nowhere/roof.png"), "expected an existing folder"),
    ],
)
def test_errors_are_told(arguments: tuple[str, ...], message: str, tiny: Path, capsys: Any) -> None:
    status, out, err = bench(capsys, *(str(tiny) if word == "MODEL" else word for word in arguments))
    assert (status, out) == (2, "")
    assert message in err


def test_unknown_presets_and_phases() -> None:
    with pytest.raises(InvalidArgument, match=r"expected one of 3b, 8b, 3b-s2, 13b, tiny, got 70b"):
        preset_config("70b")
    with pytest.raises(InvalidArgument, match="expected some of vision, prefill"):
        run_bench(Path("nowhere"), Options(phases=["sleep"]))  # type: ignore[list-item]
    assert len(PHASES) == 5


def test_a_load_that_fails_says_why(limits: list[Any], tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.sys, "executable", "/bin/false")
    with pytest.raises(_core.InternalError, match="load: expected exit status 0, got 1: no message"):
        run_bench(tiny, Options(phases=["load"], repeats=1))


def test_the_picture_is_a_png(
    capsys: pytest.CaptureFixture[str], limits: list[Any], tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    options = ("--repeats", 1, "--threads", 1, 2, "--prompt-tokens", 8, "--contexts", 16, "--plot", path)
    assert bench(capsys, tiny, *options)[0] == 0
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", data[16:24])
    assert width > height > 400  # two panels


def test_the_picture_needs_the_extra(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    status, out, err = bench(capsys, tiny, "--plot", tmp_path / "roofline.png")
    assert (status, out) == (2, "")
    assert err == "vila-engine: [bench] --plot: expected matplotlib, got none: pip install 'vila_engine[bench]'\n"


def test_progress_is_for_terminals_only(
    capsys: pytest.CaptureFixture[str], limits: list[Any], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(capsys, tiny, "--only", "vision", "--repeats", 1)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = bench(capsys, tiny, "--only", "vision", "--repeats", 1)[2]
    assert "vision 0/2" in err
    assert err.endswith("\r\x1b[K")
