"""The table of fixtures: what each tiny checkpoint is made of and which cases are computed on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Turns = list[str | None]


@dataclass(frozen=True)
class Case:
    """One prompt with its pictures; `conv` replaces the variant's template when given."""

    name: str
    images: list[str]
    turns: Turns
    conv: str | None = None


@dataclass(frozen=True)
class Vision:
    """Sizes of a tower; `kind` is `siglip` or `intern_vit`, `image` and `patch` are in pixels."""

    kind: str = "siglip"
    hidden: int = 16
    heads: int = 2
    layers: int = 2
    inter: int = 24
    image: int = 98
    patch: int = 14
    with_head: bool = False


@dataclass(frozen=True)
class Llm:
    """Sizes of a Llama decoder."""

    hidden: int
    heads: int
    kv: int
    inter: int
    layers: int = 2
    theta: float = 1e4
    attention_bias: bool = False


@dataclass(frozen=True)
class Variant:
    """One fixture folder. `seed` is where the search for healthy greedy margins starts."""

    name: str
    seed: int
    cases: list[Case]
    vision: Vision
    llm: Llm
    conv: str = "vicuna_v1"
    tok: str = "llama_2"
    n_base: int = 352
    projector: str = "mlp_downsample"
    dtype: str = "bf16"
    storage: str = "safetensors"
    shards: int = 1
    select_layer: int = -2
    aspect: str = "resize"
    s2_scales: list[int] = field(default_factory=list)
    s2_max_split: int = 0
    all_logits: list[str] = field(default_factory=list)
    pixels: bool = False
    wants_stop: bool = False

    def describe(self) -> dict[str, Any]:
        """The variant as plain values for the manifest, without its cases."""
        plain = asdict(self)
        del plain["cases"], plain["name"]
        return plain


SINGLE_WIDE = Case("single_wide", ["wide.png"], ["<image>\nWhat is in the picture?", None])
SINGLE_TALL = Case("single_tall", ["tall.png"], ["<image>\n Describe the 2 colours: naïve café, 猫 😀.", None])
INTERLEAVED = Case(
    "interleaved",
    ["square.png", "gray.png", "rgba.png"],
    ["<image> shows a square. <image> shows\ta  moon. <image>\n\nshows", None],
)
TWO_TURN = Case(
    "two_turn",
    ["wide.png", "tall.png"],
    ["<image>\nWhat is this?", "A café by the sea, at 16:45.", "And <image>? It's a tower, isn't it", None],
)
VIDEO8 = Case(
    "video8",
    [f"frame_{index}.png" for index in range(8)],
    ["<image>\n" * 8 + "Please describe what happens in this video.", None],
)
TEXT_ONLY = Case("text_only", [], ["How many apples are in 3 bags of 12?", None])
NO_SYSTEM = Case("interleaved_nosys", INTERLEAVED.images, INTERLEAVED.turns, "vicuna_v1_nosys")
SINGLE_NO_SYSTEM = Case("single_nosys", SINGLE_WIDE.images, SINGLE_WIDE.turns, "vicuna_v1_nosys")
FIXED_ROLES = Case("single_tall_fix", SINGLE_TALL.images, SINGLE_TALL.turns, "llama_3_fix")

ALL_CASES = [SINGLE_WIDE, SINGLE_TALL, INTERLEAVED, TWO_TURN, VIDEO8, TEXT_ONLY]

VARIANTS = [
    Variant(
        "vila3b",
        100,
        [*ALL_CASES, SINGLE_NO_SYSTEM],
        Vision(hidden=32, inter=56, with_head=True),
        Llm(hidden=64, heads=2, kv=2, inter=88),
        shards=2,
        all_logits=["single_nosys"],
        pixels=True,
        wants_stop=True,
    ),
    Variant(
        "llama3",
        200,
        ALL_CASES,
        Vision(layers=3, inter=40),
        Llm(hidden=64, heads=4, kv=2, inter=72, theta=5e5),
        conv="llama_3",
        tok="llama_3_auto_bos",
        n_base=336,
        dtype="fp16",
        wants_stop=True,
    ),
    Variant(
        "llama3_nobos",
        300,
        [SINGLE_WIDE, FIXED_ROLES, TWO_TURN],
        Vision(image=56),
        Llm(hidden=32, heads=2, kv=1, inter=64, theta=5e5),
        conv="llama_3",
        tok="llama_3",
        n_base=336,
        dtype="fp16",
    ),
    Variant(
        "vila3b_s2",
        400,
        [SINGLE_WIDE, INTERLEAVED],
        Vision(),
        Llm(hidden=32, heads=2, kv=2, inter=56),
        s2_scales=[98, 196],
        s2_max_split=98,
        pixels=True,
    ),
    Variant(
        "vila40b",
        500,
        [SINGLE_WIDE, TWO_TURN, TEXT_ONLY],
        Vision(kind="intern_vit", hidden=32, heads=2, inter=56, image=56),
        Llm(hidden=48, heads=3, kv=1, inter=80, theta=5e6),
        conv="hermes-2",
        tok="yi",
        select_layer=-1,
        all_logits=["single_wide"],
        pixels=True,
        wants_stop=True,
    ),
    Variant(
        "mlp2x_pad_bin",
        600,
        [SINGLE_WIDE, SINGLE_TALL, NO_SYSTEM],
        Vision(hidden=144, heads=2, inter=20, layers=1, image=36, patch=6),
        Llm(hidden=32, heads=2, kv=2, inter=48, layers=1),
        n_base=304,
        projector="mlp2x_gelu",
        storage="bin",
        select_layer=-1,
        aspect="pad",
        pixels=True,
    ),
    Variant(
        "linear_bias_fp32",
        700,
        [SINGLE_TALL, TEXT_ONLY],
        Vision(),
        Llm(hidden=32, heads=2, kv=2, inter=48, layers=1, attention_bias=True),
        n_base=304,
        projector="linear",
        dtype="fp32",
    ),
    Variant(
        "vila3b_awq",
        800,
        [SINGLE_WIDE, TEXT_ONLY],
        Vision(),
        Llm(hidden=128, heads=2, kv=2, inter=256, layers=1),
        n_base=304,
        dtype="fp16",
        storage="llm_awq_v2",
    ),
    Variant(
        "autoawq_gqa",
        900,
        [SINGLE_WIDE, TEXT_ONLY],
        Vision(image=56),
        Llm(hidden=128, heads=2, kv=1, inter=256, layers=1),
        n_base=304,
        projector="linear",
        dtype="fp16",
        storage="autoawq_gemm",
    ),
]
