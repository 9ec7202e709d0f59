"""The model plugin for lmms-eval: `lmms_eval --model llava_scissor --model_args pretrained=DIR,... --tasks ...`.

Only the harness imports this file, by the entry point `lmms_eval_manifest`; no other file imports the harness.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import (  # pyright: ignore[reportMissingImports]
    GenerationResult,
    Instance,
    TokenCounts,
)
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL.Image import Image
from tqdm import tqdm

from llava_scissor.compression import build_compressor
from llava_scissor.config import Config, GenerationConfig, load_config, sections_with
from llava_scissor.config.messages import nearest_key
from llava_scissor.errors import ConfigError, InputError, ScissorError
from llava_scissor.generation import Answer, Request, ask_batch
from llava_scissor.generation.encode import Media, count_visuals
from llava_scissor.model import Images, load_model_from
from llava_scissor.model.prompt import PLACEHOLDER

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_SAMPLING_KWARGS = {"do_sample", "temperature", "top_p", "top_k", "num_beams"}
_KNOWN_KWARGS = {"until", "max_new_tokens", "repetition_penalty"} | _SAMPLING_KWARGS


class LlavaScissor(lmms):
    """LLaVA-OneVision with a token compressor, as lmms-eval asks it.

    Args:
        pretrained: checkpoint, as for `load_model`; None for that of `config`.
        config: a YAML file of settings; None for the defaults.
        batch_size: questions that the language model works on at once.
        device: where the model runs; not with several processes, each of which has a device of its own.
        on_error: what becomes of a question that cannot be asked, for example because its video is broken.
            `fail`: the run ends with an error that counts and names them; `empty`: the answer is the empty
            text, and an error on the log counts and names them. The model never answers without the video.
        use_until: whether the stop texts of a task end an answer. The harness's own adapter for
            LLaVA-OneVision leaves them out, and the harness gives tasks that name none a blank line.
        **settings: any other key of the settings, for example `retention_ratio=0.1`; with its section where two
            sections have it (`compression.seed`).

    Raises:
        ConfigError: an unknown argument or an impossible value.
        InputError: a device was given to several processes.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        config: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        on_error: str = "fail",
        use_until: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1:
            if device is not None:
                raise InputError(
                    f"got device={device} and {self._world_size} processes, expected no device: "
                    "accelerate gives each process its own"
                )
            device = str(self.accelerator.device)
        if on_error not in ("fail", "empty"):
            raise ConfigError(f"on_error: got {on_error!r}, expected fail or empty")
        if not str(batch_size).isdecimal() or not int(batch_size):
            raise ConfigError(f"batch_size: got {batch_size!r}, expected an integer of at least 1")
        given = {"model.path": pretrained, "model.device": device}
        self.config = _settings(config, {**{k: v for k, v in given.items() if v is not None}, **settings})
        self.batch_size = int(batch_size)
        self._is_strict, self._use_until = on_error == "fail", use_until
        self._warned: set[str] = set()
        compressor = build_compressor(self.config.compression)
        self._model = load_model_from(self.config.model, compressor)
        self.device = self._model.device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer questions about videos, images or nothing but text, `batch_size` at a time.

        Returns:
            The answers in the order of the requests.

        Raises:
            ConfigError: settings of a task that cannot be followed.
            SystemExit: with `on_error=fail`, not all could be asked; after the last, to name them all.
                lmms-eval would log any other exception, end with code 0, and leave other processes waiting.
        """
        repeats = Counter()
        pairs = []
        for request in requests:  # before the work, for the sake of who mistyped
            asked = request.args[3:]
            pairs.append((request, self._generation_config(request.args[1], repeats[asked])))
            repeats[asked] += 1
        outcomes: list[GenerationResult | ScissorError] = []
        with tqdm(total=len(pairs), desc="Answers", disable=self.rank != 0) as progress:
            for start in range(0, len(pairs), self.batch_size):
                outcomes += self._ask(pairs[start : start + self.batch_size])
                progress.update(len(outcomes) - progress.n)
        self._report(requests, outcomes)
        return [GenerationResult("") if isinstance(o, ScissorError) else o for o in outcomes]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: the answer of this model is text.

        Raises:
            InputError: always.
        """
        raise InputError(_REFUSAL.format(type="loglikelihood"))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse: one question has one answer here.

        Raises:
            InputError: always.
        """
        raise InputError(_REFUSAL.format(type="generate_until_multi_round"))

    def _ask(
        self, pairs: Sequence[tuple[Instance, GenerationConfig]]
    ) -> list[GenerationResult | ScissorError]:
        outcomes: list[Any] = []
        for instance, config in pairs:
            context, _, doc_to_visual, doc_id, task, split = instance.args
            try:
                media = _to_media(doc_to_visual(self.task_dict[task][split][doc_id]), self.config)
                outcomes.append(Request(media, _strip_placeholders(context, media), generation_config=config))
            except ScissorError as error:
                outcomes.append(error)
        places = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Request)]
        answers = ask_batch(self._model, [outcomes[i] for i in places], self.config.video)
        for i, answer in zip(places, answers, strict=True):
            outcomes[i] = answer if isinstance(answer, ScissorError) else _to_result(answer)
        return outcomes

    def _generation_config(self, kwargs: dict[str, Any], repeat: int) -> GenerationConfig:
        """Translate the generation settings of a task; each repetition of a question draws anew."""
        for key in set(kwargs) - _KNOWN_KWARGS - self._warned:
            self._warned.add(key)
            logger.warning("generation_kwargs.%s of a task has no effect with this model", key)
        if kwargs.get("num_beams") not in (None, 1):
            raise ConfigError(f"generation_kwargs.num_beams: got {kwargs['num_beams']}, expected 1")
        given = _pick(kwargs, "max_new_tokens", "repetition_penalty")
        if self._use_until:
            until = kwargs.get("until") or ()
            given["stop"] = [text for text in ([until] if isinstance(until, str) else until) if text]
        base = self.config.generation
        do_sample, temperature = kwargs.get("do_sample"), kwargs.get("temperature")
        if do_sample is None:
            do_sample = base.do_sample if temperature is None else True
        given["do_sample"] = do_sample and temperature != 0
        if given["do_sample"]:
            given |= _pick(kwargs, "temperature", "top_p", "top_k")
            given["seed"] = base.seed + repeat
        return GenerationConfig(**{**base.model_dump(), **given})

    def _report(
        self, requests: Sequence[Instance], outcomes: Sequence[GenerationResult | ScissorError]
    ) -> None:
        failures = [
            f"  {request.args[4]}, document {request.args[3]}: {outcome}"
            for request, outcome in zip(requests, outcomes, strict=True)
            if isinstance(outcome, ScissorError)
        ]
        if not failures:
            return
        message = "\n".join([f"{len(failures)} of {len(requests)} questions could not be asked:", *failures])
        if self._is_strict:
            raise SystemExit(f"{message}\nNothing is scored. Repair them, or score them with on_error=empty.")
        logger.error("%s\nTheir answers are empty, and are scored as such.", message)


_REFUSAL = (
    "got a task with requests of type {type}, expected generate_until: choose another task, "
    "most have a variant that asks for text"
)


def _to_result(answer: Answer) -> GenerationResult:
    return GenerationResult(answer.text, TokenCounts(answer.num_prompt_tokens, answer.num_new_tokens))


def _pick(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys if values.get(key) is not None}


def _settings(path: str | None, values: dict[str, Any]) -> Config:
    """Put model arguments over a file of settings; a key without a section is that of the only one that has it."""
    overrides = []
    for name, value in values.items():
        key = name.rpartition(".")[2]
        sections = sections_with(key)
        if "." not in name and len(sections) != 1:
            expected = [f"{s}.{key}" for s in sections] or [
                nearest_key(name, Config) or "a key of the settings"
            ]
            raise ConfigError(f"model_args: got {name}={value}, expected {' or '.join(expected)}")
        overrides.append(f"{name if '.' in name else f'{sections[0]}.{key}'}={value}")
    return load_config(path, overrides)


def _to_media(visuals: Sequence[Any] | None, config: Config) -> Media:
    """Return what a document shows: one video, images, or nothing.

    Raises:
        InputError: anything else.
    """
    if not visuals:
        return None
    if all(
        isinstance(v, Image) or (isinstance(v, str) and v.lower().endswith(_IMAGE_SUFFIXES)) for v in visuals
    ):
        return Images(*visuals, compress=config.compression.images)
    if len(visuals) == 1 and isinstance(visuals[0], (str, Path, bytes)):
        return visuals[0]
    kinds = ", ".join(sorted({type(v).__name__ for v in visuals}))
    raise InputError(f"got {len(visuals)} visuals ({kinds}), expected the path of one video, or images")


def _strip_placeholders(context: str, media: Media) -> str:
    """Take away the placeholders that a task wrote before its text; the prompt has its own in the same place."""
    count = count_visuals(media)
    return re.sub(rf"^\s*(?:{PLACEHOLDER} *){{{count}}}\n?", "", context) if count else context
