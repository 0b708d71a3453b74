"""Opens the parts of a published checkpoint and compares them with the plan, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType

from vila_engine._core import CheckpointError
from vila_engine.convert.awq import AwqLayout, detect_layout
from vila_engine.convert.folders import SourceModel
from vila_engine.convert.plan import TILE_ROWS, Entry, Part, ignored, plan_entries
from vila_engine.convert.readers import TensorSource, open_tensors, open_torch
from vila_engine.convert.sentencepiece_model import CONTROL, USER_DEFINED
from vila_engine.convert.tokenizers import ADDED, Spec, add_special_token, read_tokenizer

FLOATS = ("float32", "float16", "bfloat16")
SPECIAL_TYPES = (ADDED, CONTROL, USER_DEFINED)
PATCH_TOKEN = "<im_patch>"
PADDING_MULTIPLE = 64  # vocabularies are padded up to a multiple of this, or
MAX_PADDING_ROWS = 1024  # by at most so many rows and a sixteenth of them


class Checkpoint:
    """A complete checkpoint: tensors, tokenizer, and the plan of what becomes of each. A context manager.

    Attributes:
        model: The description; its vocabulary size is the tokenizer's and its notes grow.
        spec: The tokenizer.
        sources: The tensors of each part.
        awq: How the language model's matrices are packed, None if they are not.
        entries: What is to be written, from which tensor.
    """

    def __init__(self, model: SourceModel) -> None:
        """Opens and checks everything.

        Args:
            model: The description of the folder.

        Raises:
            CheckpointError: something is missing, unknown, of a wrong shape or of a wrong type; all of it is listed.
            UnsupportedError: a format that the engine does not implement.
            IoError: a file cannot be read.
        """
        self.model = model
        self.sources: dict[Part, TensorSource] = {}
        self.awq: AwqLayout | None = None
        self.entries = plan_entries(model)
        with ExitStack() as stack:
            problems = [*self._open(stack), *self._compare()]
            if problems:
                listed = "".join(f"\n  - {problem}" for problem in problems)
                count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
                raise CheckpointError(
                    f"[convert] {model.folder}: expected a complete VILA 1.5 checkpoint, got {count}:{listed}"
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def is_packed(self, entry: Entry) -> bool:
        """Whether a matrix is a 4-bit one in the file."""
        return self.awq is not None and entry.role == "block" and entry.kind == "matrix" and self._has_qweight(entry)

    def special_tokens(self) -> set[str]:
        """Contents of all control, user-defined and added tokens."""
        tokens = {token["content"] for token in self.spec["added_tokens"]} | set(self.spec["special_tokens"])
        typed = zip(self.spec["pieces"], self.spec["types"], strict=True)
        return tokens | {piece.decode("utf-8", "replace") for piece, kind in typed if kind in SPECIAL_TYPES}

    def _has_qweight(self, entry: Entry) -> bool:
        return entry.source.removesuffix("weight") + "qweight" in self.names[entry.part]

    def _open(self, stack: ExitStack) -> Iterator[str]:
        """Opens the parts and the tokenizer; yields what is wrong with them."""
        model = self.model
        openers: dict[Part, Callable[[], TensorSource]] = {
            "llm": self._open_llm,
            "vision": partial(open_tensors, model.vision_folder),
        }
        if model.projector["kind"] != "identity":
            openers["projector"] = partial(open_tensors, model.projector_folder)
        for part, opener in openers.items():
            try:
                self.sources[part] = stack.enter_context(opener())
            except CheckpointError as error:
                yield f"{part}: {str(error).removeprefix('[convert] ')}"
        self.names = {part: set(source.names()) for part, source in self.sources.items()}
        if "llm" in self.sources:
            self.awq = detect_layout(self.sources["llm"], model.quantization)
        try:
            self.spec: Spec = read_tokenizer(model.llm_folder)
        except CheckpointError as error:
            yield str(error)
        else:
            yield from self._fit_vocabulary()

    def _open_llm(self) -> TensorSource:
        folder = self.model.llm_folder
        packed = sorted(folder.glob("*.pt"))
        if len(packed) > 1:
            raise CheckpointError(
                f"[convert] {folder}: expected at most one .pt file, got {[path.name for path in packed]}"
            )
        if not packed:
            return open_tensors(folder)
        # An index of float shards that are not there lies beside the published .pt files.
        self.model.notes.append(f"language model read from {packed[0].name}")
        return open_torch(packed[0])

    def _compare(self) -> Iterator[str]:
        """Compares the plan with what is in the files; yields every difference."""
        used: dict[Part, set[str]] = {part: set() for part in self.sources}
        for entry in self.entries:
            if entry.part not in self.sources:
                continue
            source = self.sources[entry.part]
            if self.awq is not None and self.is_packed(entry):
                stem = entry.source.removesuffix(".weight")
                used[entry.part] |= {f"{stem}.{part}" for part in self.awq.parts(*entry.shape)}
                yield from (f"{entry.part}: {problem}" for problem in self.awq.problems(source, stem, *entry.shape))
                continue
            used[entry.part].add(entry.source)
            if entry.source not in self.names[entry.part]:
                yield f"{entry.part}: missing {entry.source}"
                continue
            info = source.info(entry.source)
            if info.shape != entry.published:
                yield f"{entry.part}: {entry.source}: expected shape {entry.published}, got {info.shape}"
            if info.dtype not in FLOATS:
                yield f"{entry.part}: {entry.source}: expected floating-point numbers, got {info.dtype}"
        for part, names in self.names.items():
            unknown = sorted(name for name in names - used[part] if not ignored(self.model, part, name))
            yield from (f"{part}: unknown tensor {name}" for name in unknown)

    def _fit_vocabulary(self) -> Iterator[str]:
        """Gives the model the tokenizer's size, as the reference does when it resizes the embeddings."""
        model = self.model
        rows = model.llm["vocab_size"]
        known = {token["content"] for token in self.spec["added_tokens"]}
        if model.adds_patch_token and len(self.spec["pieces"]) < rows and PATCH_TOKEN not in known:
            add_special_token(self.spec, PATCH_TOKEN)
            model.notes.append(f"token {PATCH_TOKEN} added, as mm_use_im_patch_token asks")
        tokens = len(self.spec["pieces"])
        fewer = rows - tokens
        is_rounded_up = rows % PADDING_MULTIPLE == 0 and fewer < PADDING_MULTIPLE
        if fewer < 0 or not (is_rounded_up or fewer <= min(MAX_PADDING_ROWS, rows // TILE_ROWS)):
            yield (f"tokenizer: expected vocab_size = {rows} tokens, or a few less and padding rows, got {tokens}")
            return
        if tokens < rows:
            model.llm["vocab_size"] = tokens
            model.notes.append(f"{rows - tokens} padding rows of the vocabulary dropped")
            wide = ("llm.lm_head", "llm.model.embed_tokens.weight")
            self.entries = [replace(e, shape=(tokens, e.shape[1])) if e.name in wide else e for e in self.entries]
        yield from self._check_special_ids()

    def _check_special_ids(self) -> Iterator[str]:
        """The ids that begin a text and end an answer are special tokens, or the tokenizer is another model's."""
        special = {token["id"] for token in self.spec["added_tokens"]}
        special |= {index for index, kind in enumerate(self.spec["types"]) if kind in SPECIAL_TYPES}
        bos, eos = self.model.llm["bos_token_id"], self.model.llm["eos_token_ids"]
        for name, ids in (("bos_token_id", [] if bos is None else [bos]), ("eos_token_id", eos)):
            bad = [id_ for id_ in ids if id_ not in special]
            if bad:
                yield f"tokenizer: expected special tokens at {name} {ids}, got {[self._piece(id_) for id_ in bad]}"

    def _piece(self, id_: int) -> str:
        pieces = self.spec["pieces"]
        return pieces[id_].decode("utf-8", "replace") if 0 <= id_ < len(pieces) else f"nothing at {id_}"
