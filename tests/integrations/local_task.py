"""A task for lmms-eval on the shipped clips, written to a directory: JSON, YAML and Python."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from llava_scissor.demo.clips import demo_clips

NAME = "shapes_local"

_TASK = """\
task: shapes_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {docs}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.process_results
metric_list:
  - metric: right
    aggregation: !function utils.mean
    higher_is_better: true
generation_kwargs:
  max_new_tokens: 8
  temperature: 0
  do_sample: false
"""

_UTILS = """\
from PIL import Image


def doc_to_visual(doc):
    if doc["images"]:
        return [Image.open(path).convert("RGB") for path in doc["images"]]
    return [doc["video"]] if doc["video"] else []


def process_results(doc, results):
    return {"right": {"score": float(results[0] == doc["answer"]), "video": doc["video"]}}


def mean(samples):
    return sum(sample["score"] for sample in samples) / len(samples)
"""


def video_docs(num_clips: int = 3) -> list[dict]:
    """The questions about the shipped clips."""
    return [
        {"video": str(clip.path), "images": [], "question": question.text, "answer": question.answer}
        for clip in demo_clips()[:num_clips]
        for question in clip.questions
    ]


def other_docs(directory: Path) -> list[dict]:
    """A question about one image, about two, and about nothing; their answers are not known."""
    paths = []
    for i, size in enumerate([(128, 128), (200, 120)]):
        paths.append(str(directory / f"{i}.png"))
        Image.effect_noise(size, 80).save(paths[-1])
    docs = [{"images": images, "question": "What is the background?"} for images in (paths[:1], paths, [])]
    return [{"video": None, "answer": "?", **doc} for doc in docs]


def write_task(directory: Path, docs: list[dict]) -> Path:
    """Write a task that asks these questions; return the directory, for `--include_path`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "docs.json"
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    (directory / f"{NAME}.yaml").write_text(_TASK.format(docs=path), encoding="utf-8")
    (directory / "utils.py").write_text(_UTILS, encoding="utf-8")
    return directory
