"""Chat templates against the strings of VILA's conversation.py, written out in full."""

from __future__ import annotations

import pytest
from vila_engine import _core

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
ASK = [("user", "<image>\n What?")]
DIALOGUE = [*ASK, ("assistant", "A cat."), ("user", "Sure?")]
CLOSED = [*DIALOGUE, ("assistant", "Yes.")]


def header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


@pytest.mark.parametrize("mode", ["vicuna_v1", "v1"])
def test_vicuna(mode: str) -> None:
    assert _core.render_chat(mode, ASK) == f"{VICUNA} USER: <image>\n What? ASSISTANT:"
    two = f"{VICUNA} USER: <image>\n What? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"
    assert _core.render_chat(mode, DIALOGUE) == two
    assert _core.render_chat(mode, CLOSED) == f"{two} Yes.</s>"


def test_vicuna_without_system_begins_with_a_space() -> None:
    assert _core.render_chat("vicuna_v1_nosys", ASK) == " USER: <image>\n What? ASSISTANT:"


def test_llama_3_answers_under_a_system_header() -> None:
    end = "<|end_of_text|>"
    start = f"<|begin_of_text|>{header('system')}{LLAMA}{end}{header('user')}<image>\n What?{end}{header('system')}"
    assert _core.render_chat("llama_3", ASK) == start
    two = f"{start}A cat.{end}{header('user')}Sure?{end}{header('system')}"
    assert _core.render_chat("llama_3", DIALOGUE) == two
    assert _core.render_chat("llama_3", CLOSED) == f"{two}Yes.{end}"


def test_llama_3_fix() -> None:
    end = "<|eot_id|>"
    start = f"<|begin_of_text|>{header('system')}{LLAMA}{end}{header('user')}<image>\n What?{end}{header('assistant')}"
    assert _core.render_chat("llama_3_fix", ASK) == start
    two = f"{start}A cat.{end}{header('user')}Sure?{end}{header('assistant')}"
    assert _core.render_chat("llama_3_fix", DIALOGUE) == two
    assert _core.render_chat("llama_3_fix", CLOSED) == f"{two}Yes.<|end_of_text|>"


def test_hermes_2() -> None:
    start = "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n What?<|im_end|>"
    two = f"{start}<|im_start|>assistant\nA cat.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n"
    assert _core.render_chat("hermes-2", ASK) == f"{start}<|im_start|>assistant\n"
    assert _core.render_chat("hermes-2", DIALOGUE) == two


def test_plain() -> None:
    assert _core.render_chat("plain", [("user", "<image>")]) == "<image>"
    assert _core.render_chat("plain", [("user", "<image>"), ("assistant", "a cat")]) == "<image>a cat\n"


def test_system_text() -> None:
    assert _core.render_chat("vicuna_v1", ASK, "Be brief.") == "Be brief. USER: <image>\n What? ASSISTANT:"
    messages = [("system", "Be kind."), *ASK]
    assert _core.render_chat("vicuna_v1", messages, "Be brief.") == "Be kind. USER: <image>\n What? ASSISTANT:"
    assert _core.render_chat("hermes-2", messages).startswith("<|im_start|>system\nBe kind.<|im_end|>")


def test_unknown_mode_lists_the_known_ones() -> None:
    known = "v1, vicuna_v1, vicuna_v1_nosys, llama_3, llama_3_fix, hermes-2, plain"
    with pytest.raises(_core.UnsupportedError, match=f'expected one of {known}, got "llava_v0"'):
        _core.render_chat("llava_v0", ASK)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [("system", "x")],
        [("assistant", "x")],
        [("user", "x"), ("user", "y")],
        [("user", "x"), ("system", "y")],
        [("user", "x"), ("assistant", "y"), ("assistant", "z")],
        [("User", "x")],
    ],
)
def test_wrong_order_of_roles(messages: list[tuple[str, str]]) -> None:
    with pytest.raises(_core.InvalidArgument, match="expected"):
        _core.render_chat("vicuna_v1", messages)


@pytest.mark.parametrize(
    ("content", "mode"), [("<|im_start|>", "hermes-2"), ("<|start_header_id|>", "llama_3"), ("<|other|>", "vicuna_v1")]
)
def test_detection_from_tokens(content: str, mode: str) -> None:
    tokenizer = _core.Tokenizer.from_spec(
        {
            "kind": "byte_bpe",
            "pieces": [*(bytes([b]) for b in range(256)), content.encode()],
            "types": [1] * 256 + [0],
            "added_tokens": [{"id": 256, "content": content, "special": True}],
        }
    )
    assert _core.detect_conv_mode(tokenizer) == mode
