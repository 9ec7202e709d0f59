"""Accuracy of many compressors on the same clips: one run, resumable, every answer kept.

The vision tower sees every clip once; its tokens are stored and given to each compressor in turn.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig
from llava_scissor.demo.clips import scene_of_seed
from llava_scissor.demo.drawing import render
from llava_scissor.demo.evaluation import HELD_OUT
from llava_scissor.demo.questions import Question, sample_questions
from llava_scissor.errors import InputError
from llava_scissor.generation.decoding import Reply, generate
from llava_scissor.model import OneVision
from llava_scissor.video import preprocess_frames

logger = logging.getLogger(__name__)

_SHORT_ANSWER = GenerationConfig(max_new_tokens=8)


@dataclass(frozen=True)
class Suite:
    """A named set of held-out clips with one question of every type that applies about each.

    Attributes:
        name: with a version; clips and questions of a name never change.
        first_clip: number of the first clip.
        num_clips: number of clips.
    """

    name: str
    first_clip: int
    num_clips: int


SUITES = {
    # Options of the compressor are chosen on "tune" and reported on "shapes-v1".
    "shapes-v1": Suite("shapes-v1", 0, 400),
    "shapes-v1-tune": Suite("shapes-v1-tune", 10_000, 200),
}


@dataclass(frozen=True)
class SuiteAnswer:
    """One answer to one question, as it is stored.

    Attributes:
        suite: name of the suite.
        method: name of the compressor and its settings, for example `scissor 0.1`.
        clip: number of the clip.
        kind: type of the question.
        question: its text.
        expected: the right answer.
        said: what the model said.
        num_input: visual tokens of the clip.
        num_kept: visual tokens that the model was given.
        compression_s: seconds that the compressor took for the clip.
    """

    suite: str
    method: str
    clip: int
    kind: str
    question: str
    expected: str
    said: str
    num_input: int
    num_kept: int
    compression_s: float

    @property
    def is_right(self) -> bool:
        """Whether the answer is the expected one to the letter."""
        return self.said == self.expected


def run_suite(
    model: OneVision,
    methods: Mapping[str, Compressor],
    suite: Suite,
    results: Path,
    cache: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[SuiteAnswer]:
    """Ask every question of a suite with every compressor.

    Args:
        model: the model under test; its own compressor is not used.
        methods: compressors by a name that says which settings they have.
        suite: clips and questions.
        results: JSON lines, one for each answer; those that are there are not asked again.
        cache: directory for the visual tokens.
        on_progress: called with the number of clips done and to do, over all methods.

    Returns:
        All answers of these methods, by method and clip.

    Raises:
        InputError: `results` holds something else, or answers to other questions.
    """
    stored = read_results(results) if results.exists() else []
    done = {(a.method, a.clip) for a in stored if a.suite == suite.name}
    clips = range(suite.first_clip, suite.first_clip + suite.num_clips)
    num_done, num_all = 0, len(clips) * len(methods)
    fresh: list[SuiteAnswer] = []
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        for clip, tokens, questions in _encoded(model, clips, cache):
            for method, compressor in methods.items():
                if (method, clip) not in done:
                    answers = _answer(model, compressor, tokens, questions)
                    fresh += [SuiteAnswer(suite.name, method, clip, *a) for a in answers]
                    file.writelines(json.dumps(asdict(a)) + "\n" for a in fresh[-len(questions) :])
                    file.flush()
                num_done += 1
                if on_progress:
                    on_progress(num_done, num_all)
    order = {method: i for i, method in enumerate(methods)}
    mine = [a for a in [*stored, *fresh] if a.suite == suite.name and a.method in order and a.clip in clips]
    return sorted(mine, key=lambda a: (order[a.method], a.clip))


def read_results(path: Path) -> list[SuiteAnswer]:
    """Read stored answers; a last line that was cut off by an interruption is left out.

    Raises:
        InputError: a line is not such an answer.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        logger.warning("%s ends in the middle of a line, which is left out", path)
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    try:
        return [SuiteAnswer(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a file of answers: {error}; give another one") from error


@torch.inference_mode()
def _answer(
    model: OneVision, compressor: Compressor, tokens: Float[Tensor, "f p d"], questions: Sequence[Question]
) -> Iterator[tuple]:
    """Compress once and answer all questions about a clip as one batch; yields the fields of `SuiteAnswer`."""
    started_s = time.perf_counter()
    result = compressor(tokens)
    compression_s = time.perf_counter() - started_s
    prompts = [model.embed_prompt(model.tokenize(q.text), result.tokens) for q in questions]
    replies = [Reply(model, _SHORT_ANSWER) for _ in questions]
    for _ in generate(model, prompts, replies):
        pass
    for question, reply in zip(questions, replies, strict=True):
        said = reply.text.whole(reply.ids)
        numbers = (result.num_input, result.num_kept, compression_s)
        yield question.kind, question.text, question.answer, said, *numbers


@torch.inference_mode()
def _encoded(
    model: OneVision, clips: range, cache: Path
) -> Iterator[tuple[int, Float[Tensor, "f p d"], list[Question]]]:
    """Yield each clip's number, visual tokens and questions; tokens are stored as one file a clip."""
    directory = cache / _fingerprint(model)
    directory.mkdir(parents=True, exist_ok=True)
    geometry = model.geometry
    for clip in clips:
        path = directory / f"{clip}.safetensors"
        scene, rng = scene_of_seed((HELD_OUT, clip))
        frames = torch.from_numpy(render(scene, rng, geometry.image_size))
        if not path.exists():
            pixels = preprocess_frames(frames, geometry.image_size, geometry.image_mean, geometry.image_std)
            partial = path.with_suffix(".partial")
            save_file({"tokens": model.encode_video(pixels).cpu().contiguous()}, partial)
            partial.replace(path)
        with safe_open(path, "pt") as file:
            tokens = file.get_tensor("tokens").to(model.device)
        yield clip, tokens, sample_questions(scene, rng)


def _fingerprint(model: OneVision) -> str:
    """Name what visual tokens depend on: the weights that make them, and their number format."""
    digest = hashlib.sha256(str(model.dtype).encode())
    for part in (model.vision_tower, model.projector):
        for parameter in part.parameters():
            digest.update(parameter.detach().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
