"""The command line: one `_add_` function and one runner per command; packages with commands of their own add them."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vila_engine import _core
from vila_engine.bench.commands import add_commands as add_bench
from vila_engine.demo.commands import add_commands as add_demo
from vila_engine.evaluate.commands import add_commands as add_evaluation
from vila_engine.train.commands import add_commands as add_train

CONV_MODES = ("vicuna_v1", "vicuna_v1_nosys", "llama_3", "llama_3_fix", "hermes-2", "plain")
WEIGHTS = ("f32", "f16", "int8", "int4")

EXIT_FAILED, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_CLOSED = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    0: done. 1: a check failed. 2: an error, told on stderr. 130: interrupted. 141: nobody reads the output any more
    (128 + SIGPIPE, as from other programs).
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        parsed = _parser().parse_args(arguments)
        status = int(parsed.run(parsed))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go; the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CLOSED
    except (_core.Error, ImportError, MemoryError, OSError) as error:
        print(f"vila-engine: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("vila-engine: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vila-engine", description="VILA 1.5 visual language models on CPUs.", formatter_class=_Help
    )
    parser.add_argument("--version", action="version", version=f"vila-engine {_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_convert, _add_describe, _add_chat, _add_inspect, _add_parity, add_bench, add_demo, add_train):
        add(commands)
    add_evaluation(commands, _open_torch)
    return parser


def _open_torch(folder: Path) -> Any:
    from vila_engine.train.reference import TorchModel

    return TorchModel(folder)


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the examples as they are and shows defaults."""


def _command(commands: Any, name: str, run: Any, help: str, examples: str) -> argparse.ArgumentParser:
    epilog = "examples:\n" + "\n".join(f"  vila-engine {line}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=_Help
    )
    parser.set_defaults(run=run)
    return parser


def _add_convert(commands: Any) -> None:
    parser = _command(
        commands, "convert", _convert, "convert a published VILA 1.5 checkpoint into a model folder",
        "convert VILA1.5-3b -o vila1.5-3b-int4\n"
        "convert Efficient-Large-Model/VILA1.5-3b -o vila1.5-3b-int8 --weights int8\n"
        "convert VILA1.5-3b-AWQ -o vila1.5-3b-awq",
    )  # fmt: skip
    parser.add_argument("source", help="folder in the published layout, or a Hugging Face Hub id")
    parser.add_argument("-o", "--output", required=True, help="the new model folder")
    parser.add_argument("--weights", choices=WEIGHTS, default="int4", help="language model")
    parser.add_argument(
        "--vision-weights", choices=WEIGHTS, help="vision tower and projector; int8 with --weights int4"
    )
    parser.add_argument("--head-weights", choices=WEIGHTS, help="vocabulary projection; int8 with --weights int4")
    parser.add_argument("--group-size", type=int, choices=(32, 64, 128), default=128, help="columns per scale")
    parser.add_argument("--conv-mode", choices=CONV_MODES, help="chat template; detected if not given")
    parser.add_argument("--force", action="store_true", help="replace a model folder that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _convert(args: argparse.Namespace) -> int:
    from vila_engine.convert import convert

    report = convert(
        args.source, args.output, weights=args.weights, vision_weights=args.vision_weights,
        head_weights=args.head_weights, group_size=args.group_size, conv_mode=args.conv_mode, force=args.force,
        progress=not args.quiet and sys.stderr.isatty(),
    )  # fmt: skip
    if args.json:
        print(json.dumps(asdict(report), default=str))
        return 0
    print(
        f"{report.path}: {report.n_bytes / 1e6:,.1f} MB in {report.n_tensors} tensors, chat template {report.conv_mode}"
    )
    print("matrices: " + ", ".join(f"{count} {name}" for name, count in sorted(report.formats.items())))
    for note in report.notes:
        print(f"note: {note}")
    return 0


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder written by convert")
    parser.add_argument("--conv-mode", choices=CONV_MODES, help="chat template; the model's own if not given")
    parser.add_argument("--threads", type=int, help="compute threads; physical cores if not given")
    parser.add_argument("--isa", help="kernels to use (see inspect); VILA_ISA or the best if not given")
    parser.add_argument("--memory", choices=("fast", "mapped"), default="fast", help="where the weights lie")
    parser.add_argument("--kv-cache", choices=("f16", "int8"), default="f16", help="type of cached keys and values")
    parser.add_argument("--system", help="system text; the chat template's own if not given")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus mass")
    parser.add_argument("--top-k", type=int, default=0, help="0 is off")
    parser.add_argument("--min-p", type=float, default=0.0, help="least share of the best probability")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 avoids repetition")
    parser.add_argument("--num-beams", type=int, default=1, help="beam search")
    parser.add_argument(
        "--prompt-lookup", type=int, default=0, help="tokens guessed per step from earlier text; 0 is off"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--stop", action="append", default=[], help="text that ends the answer; may be repeated")
    parser.add_argument("--ignore-eos", action="store_true", help="go on to the longest answer")
    parser.add_argument("--num-video-frames", type=int, help="frames per video; the model's own if not given")


def _load(args: argparse.Namespace) -> Any:
    from vila_engine.engine import load

    return load(
        args.model, threads=args.threads, isa=args.isa, memory=args.memory, kv_cache=args.kv_cache,
        conv_mode=args.conv_mode,
    )  # fmt: skip


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    names = (
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "num_beams",
        "prompt_lookup",
        "seed",
        "stop",
        "ignore_eos",
    )
    return {name: getattr(args, name) for name in names}


def _add_describe(commands: Any) -> None:
    parser = _command(
        commands, "describe", _describe, "answer one question about pictures or videos",
        r"""describe MODEL --query "<image>\n Please describe the traffic condition." --image av.png
describe MODEL --query "<video>\n What happens?" --video demo.mp4 --num-video-frames 8
describe MODEL --query "<image> is a cup. <image> is" --image cup.png --image cat.png --conv-mode vicuna_v1""",
    )  # fmt: skip
    _add_model(parser)
    parser.add_argument("--query", default="Describe the picture.", help=r"question; \n is a new line; - reads stdin")
    parser.add_argument("--image", action="append", default=[], help="picture file; may be repeated")
    parser.add_argument("--video", action="append", default=[], help="video file; may be repeated")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="print text, ids, counts and times as JSON")
    parser.add_argument("--stats", action="store_true", help="print counts and times on stderr")


def _query(text: str) -> str:
    return sys.stdin.read() if text == "-" else text.replace("\\n", "\n")


def _describe(args: argparse.Namespace) -> int:
    query = _query(args.query)
    with _load(args) as model, model.stream(
        query, images=args.image, videos=args.video, num_video_frames=args.num_video_frames, system=args.system,
        **_sampling(args),
    ) as stream:  # fmt: skip
        if not args.json:
            _print_pieces(stream)
        result = stream.result()
    if args.json:
        print(json.dumps(asdict(result), ensure_ascii=False))
    if args.stats:
        print(_stats(result), file=sys.stderr)
    return 0


def _print_pieces(stream: Any) -> None:
    """Prints an answer as it comes, without white space at its ends."""
    started, held = False, ""
    for piece in stream:
        text = held + piece.text
        held = ""
        if not started:
            text = text.lstrip()
            started = bool(text)
        kept = text.rstrip()
        held = text[len(kept) :]
        print(kept, end="", flush=True)
    print()


def _stats(result: Any) -> str:
    usage, times = result.usage, result.timings
    rate = (usage.completion_tokens - 1) / times.decode if usage.completion_tokens > 1 and times.decode > 0 else 0.0
    return (
        f"[{usage.prompt_tokens} prompt tokens ({usage.image_tokens} of pictures, {usage.cached_tokens} cached), "
        f"{usage.completion_tokens} new, {result.finish_reason}; load {times.load:.2f} s, "
        f"pictures {times.image:.2f} s, prompt {times.prefill:.2f} s, {rate:.1f} tokens/s]"
    )


CHAT_HELP = "/image FILE or /video FILE adds media to the next question, /reset forgets, /quit or end of input ends."


def _add_chat(commands: Any) -> None:
    parser = _command(
        commands, "chat", _chat, "ask in several turns; questions are read from stdin, one per line",
        "chat MODEL --image cat.png\n"
        'chat MODEL --image cat.png --json <<< "What is this?"',
    )  # fmt: skip
    parser.description = f"{parser.description}. {CHAT_HELP}"
    _add_model(parser)
    parser.add_argument("--image", action="append", default=[], help="picture of the first question; may be repeated")
    parser.add_argument("--video", action="append", default=[], help="video of the first question; may be repeated")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="print each answer as one line of JSON")
    parser.add_argument("--stats", action="store_true", help="print counts and times on stderr")


def _chat(args: argparse.Namespace) -> int:
    interactive = sys.stdin.isatty()
    with _load(args) as model:
        chat = model.chat(args.system, num_video_frames=args.num_video_frames)
        images, videos = list(args.image), list(args.video)
        if interactive:
            print(CHAT_HELP)
        while True:
            print("> " if interactive else "", end="", flush=True)
            line = sys.stdin.readline()
            text = line.strip()
            if not line or text == "/quit":
                return 0
            if text == "/reset":
                chat.reset()
                images, videos = [], []
            elif text.startswith("/image "):
                images.append(text.removeprefix("/image ").strip())
            elif text.startswith("/video "):
                videos.append(text.removeprefix("/video ").strip())
            elif text:
                try:
                    stream = chat.stream(_query(text), images=images, videos=videos, **_sampling(args))
                except _core.Error as error:
                    if not interactive:
                        raise
                    print(f"vila-engine: {error}", file=sys.stderr)
                    images, videos = [], []
                    continue
                images, videos = [], []
                _answer(stream, args, interactive=interactive)


def _answer(stream: Any, args: argparse.Namespace, *, interactive: bool) -> None:
    with stream:
        try:
            if not args.json:
                _print_pieces(stream)
            result = stream.result()
        except KeyboardInterrupt:
            if not interactive:
                raise
            print()
            return
        if args.json:
            print(json.dumps(asdict(result), ensure_ascii=False), flush=True)
        if args.stats:
            print(_stats(result), file=sys.stderr)


def _add_inspect(commands: Any) -> None:
    parser = _command(
        commands, "inspect", _inspect, "show the kernels of this build and machine, and what a model consists of",
        "inspect\ninspect MODEL\ninspect MODEL --json",
    )  # fmt: skip
    parser.add_argument("model", nargs="?", help="model folder; without it only the machine is shown")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect(args: argparse.Namespace) -> int:
    chosen = _core.chosen_kernels()
    report: dict[str, Any] = {
        "version": _core.__version__,
        "kernels": [
            {"name": name, "usable": usable, "chosen": name == chosen} for name, usable in _core.kernel_names()
        ],
        "threads": _core.default_threads(),
    }
    if args.model:
        from vila_engine.engine import load

        with load(args.model, memory="mapped") as model:
            report["model"] = model.info
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    print(f"vila-engine {report['version']}, {report['threads']} threads by default")
    print("kernels, best first:")
    for kernel in report["kernels"]:
        state = "chosen" if kernel["chosen"] else "usable" if kernel["usable"] else "not usable on this machine"
        print(f"  {kernel['name']:14} {state}")
    if "model" in report:
        _print_info(report["model"])
    return 0


def _print_info(info: dict[str, Any]) -> None:
    llm, vision = info["llm"], info["vision"]
    print(
        f"model: {info['source'] or 'unnamed'}, {info['file_bytes'] / 1e6:,.1f} MB, chat template {info['conv_mode']}"
    )
    print(
        f"  language model  {llm['n_layers']} layers, width {llm['dim']}, {llm['n_heads']} heads "
        f"({llm['n_kv_heads']} of keys and values), vocabulary {llm['vocab_size']}, context {info['max_context']}"
    )
    print(
        f"  vision tower    {vision['kind']}, {vision['n_layers']} layers, width {vision['dim']}, "
        f"{vision['image_size']} px, {vision['scales']} scale(s), {info['projector']} projector, "
        f"{vision['tokens_per_image']} tokens per picture"
    )
    print(
        f"  cache           {info['kv_cache']}, {info['kv_cache_bytes_per_token'] / 1e3:,.1f} kB a token, "
        f"{info['kv_cache_bytes_per_token'] * info['max_context'] / 1e6:,.1f} MB for the whole context"
    )
    for name, n_bytes in sorted(info["weight_bytes"].items()):
        print(f"  weights         {name:16} {n_bytes / 1e6:10,.1f} MB")


def _add_parity(commands: Any) -> None:
    parser = _command(
        commands, "parity", _parity, "compare the engine with recorded outputs of the PyTorch reference",
        "parity tests/golden --brief\n"
        "parity tests/golden --isa all --threads 1 2 5\n"
        "parity tests/golden --weights int8 int4\n"
        "parity tests/golden --kv-cache int8 --brief",
    )  # fmt: skip
    parser.add_argument("goldens", nargs="+", help="golden folders, or folders of golden folders")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=["f32"], help="formats to convert to")
    parser.add_argument("--isa", nargs="+", default=[], help='kernel tables; "all": each usable one')
    parser.add_argument("--threads", nargs="+", type=int, default=[], help="thread counts")
    parser.add_argument("--kv-cache", choices=("f32", "f16", "int8"), default="f32", help="cached keys and values")
    parser.add_argument("--brief", action="store_true", help="the worst value of each folder instead of every case")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _parity(args: argparse.Namespace) -> int:
    from vila_engine.parity import CaseReport, find_goldens, run_parity, table, worst

    def tell(report: CaseReport) -> None:
        print(
            f"\r\x1b[K{report.variant} {report.case} {report.weights} {report.isa}", end="", file=sys.stderr, flush=True
        )

    show = sys.stderr.isatty()
    reports = run_parity(
        find_goldens(args.goldens),
        weights=args.weights,
        isas=args.isa,
        threads=args.threads,
        kv_cache=args.kv_cache,
        report=tell if show else None,
    )
    if show:
        print("\r\x1b[K", end="", file=sys.stderr)
    broken = [report for report in reports if not report.ok]
    if args.json:
        print(json.dumps({"ok": not broken, "cases": [report.as_dict() for report in reports]}))
    else:
        print(table(worst(reports) if args.brief else reports))
        print(f"{len(reports)} cases, {len(broken)} with a broken bound (marked !); = is exact equality")
    return EXIT_FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
