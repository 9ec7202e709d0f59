"""Results as lmms-eval writes them, and the table that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from llava_scissor.errors import InputError
from llava_scissor.paper.harness import EXPERIMENTS
from llava_scissor.paper.reproduction import Column, Experiment, compare, load_experiment

TOY = load_experiment(Path(__file__).with_name("shapes_experiment.yaml"))
TABLES = EXPERIMENTS
FULL = [1, 1, 1, 1, 1, 0, 1, 0]
KEPT = [1, 1, 0, 1, 1, 0, 0, 0]


def write(
    directory: Path, task: str, metric: str, said: float, samples: list, fields: dict | None = None
) -> Path:
    """What the harness leaves behind: scores of all tasks in one file, samples of each in one."""
    place = directory / "demo"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "20261121_120000_results.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    results[task] = {"alias": task, f"{metric},none": said, f"{metric}_stderr,none": "N/A"}
    path.write_text(json.dumps({"results": results}))
    with (place / f"20261121_120000_samples_{task}.jsonl").open("w") as file:
        for i, sample in reversed(list(enumerate(samples))):
            if fields:
                sample = {"score": sample} | {key: values[i] for key, values in fields.items()}
            file.write(json.dumps({"doc_id": i, metric: sample}) + "\n")
    return directory


def experiment_of(column: Column, **keys) -> Experiment:
    return TOY.model_copy(update={"columns": {"x": column}, "runs": TOY.runs[:2], **keys})


def cell(column: Column, directories: list[Path]) -> dict:
    _, row = compare(experiment_of(column), TOY.runs[:2], directories)
    return row


READINGS = {
    "number": lambda right: float(right),
    "truth": bool,
    "score": lambda right: {"pred_answer": "A", "gt_answer": "B", "score": right},
    "judge": lambda right: {"Correctness": "Yes" if right else "no", "score": 3},
    "letters": lambda right: {"pred_answer": "A", "answer": "A" if right else "B"},
    "index": lambda right: {"pred": 1, "ground_truth": "1" if right else "2"},
}


@pytest.mark.parametrize("unit", [1, 100])
@pytest.mark.parametrize("kind", READINGS)
def test_samples_are_read_in_the_way_that_gives_the_score(kind, unit, tmp_path) -> None:
    directories = [
        write(tmp_path / name, "toy", "m", unit * fmean(right), [READINGS[kind](r) for r in right])
        for name, right in (("full", FULL), ("kept", KEPT))
    ]
    row = cell(Column(scores=("toy/m",), scale=100 / unit), directories)
    assert row["ours"] == pytest.approx(50)
    assert row["share"] == pytest.approx(100 * 4 / 6)
    assert 0 < row["low"] < row["share"] < row["high"] <= 100
    assert (row["questions"], row["note"], row["paper"], row["paper_share"]) == (8, "", None, None)


def test_there_is_no_interval_where_samples_do_not_give_the_score(tmp_path) -> None:
    directories = [
        write(tmp_path / name, "toy", "m", 0.5, [{"parsed": "A"}] * 8) for name in ("full", "kept")
    ]
    row = cell(Column(scores=("toy/m",)), directories)
    assert (row["ours"], row["share"], row["low"], row["high"]) == (0.5, 100, None, None)
    assert row["note"] == "no interval: samples of toy do not add up to the score of the harness"


def test_samples_have_to_give_the_score_of_both_runs(tmp_path) -> None:
    full = write(tmp_path / "full", "toy", "m", 0.9, FULL)
    kept = write(tmp_path / "kept", "toy", "m", fmean(KEPT), KEPT)
    for directories in ([full, kept], [kept, full]):
        assert "do not add up" in cell(Column(scores=("toy/m",)), directories)["note"]


def test_the_full_model_is_the_measure(tmp_path) -> None:
    directory = write(tmp_path, "toy", "m", fmean(FULL), FULL)
    (row, _) = compare(experiment_of(Column(scores=("toy/m",))), TOY.runs[:2], [directory, directory])
    assert (row["method"], row["share"], row["low"], row["note"]) == ("All", 100, None, "")


def test_a_mean_over_groups_has_an_interval(tmp_path) -> None:
    kinds = {"kind": [*"aaaaaa", *"bb"], "video": [*range(8)]}
    directories = [
        write(tmp_path / name, "toy", "m", 50 * (fmean(right[:6]) + fmean(right[6:])), right, kinds)
        for name, right in (("full", FULL), ("kept", [1, 1, 0, 1, 1, 0, 1, 0]))
    ]
    column = Column(scores=("toy/m",), average_over="kind", video="video")
    row = cell(column, directories)
    assert row["share"] == pytest.approx(100 * (4 / 6 + 1 / 2) / (5 / 6 + 1 / 2))
    assert row["note"] == ""
    lacking = column.model_copy(update={"average_over": "sort"})
    assert "do not add up" in cell(lacking, directories)["note"]
    assert "do not add up" in cell(Column(scores=("toy/m",)), directories)["note"]


def test_questions_about_one_video_are_drawn_together(tmp_path) -> None:
    videos = {"video": [i // 4 for i in range(16)]}
    full, kept = [1] * 16, [1] * 4 + [0] * 4 + [1] * 8
    directories = [
        write(tmp_path / name, "toy", "m", fmean(right), right, videos)
        for name, right in (("full", full), ("kept", kept))
    ]
    together = cell(Column(scores=("toy/m",), video="video"), directories)
    alone = cell(Column(scores=("toy/m",)), directories)
    assert together["share"] == alone["share"] == 75
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_a_column_is_the_mean_of_its_tasks(tmp_path) -> None:
    for name, rights in (("full", (FULL, KEPT)), ("kept", (KEPT, KEPT))):
        for task, right in zip(("toy_a", "toy_b"), rights, strict=True):
            write(tmp_path / name, task, "m", 100 * fmean(right), right)
        write(tmp_path / name, "other", "m", 0, [0])
    row = cell(Column(scores=("toy_*/m",)), [tmp_path / "full", tmp_path / "kept"])
    assert row["ours"] == 50
    assert row["share"] == pytest.approx(100 * 50 / 62.5)
    assert row["questions"] == 16


def test_tasks_count_alike_whatever_their_groups(tmp_path) -> None:
    """Where nothing varies the interval is the share itself."""
    for name, last in (("full", 1), ("kept", 0)):
        write(tmp_path / name, "toy_a", "m", 1.0, [1] * 4, {"kind": [*"aabb"]})
        write(tmp_path / name, "toy_b", "m", float(last), [last] * 2, {"kind": [*"cc"]})
    column = Column(scores=("toy_*/m",), average_over="kind")
    row = cell(column, [tmp_path / "full", tmp_path / "kept"])
    assert (row["share"], row["low"], row["high"]) == (50, 50, 50)


def test_the_papers_numbers_stand_beside_ours(tmp_path) -> None:
    experiment = load_experiment(TABLES / "table7.yaml")
    full, *_, last = experiment.runs
    directories = []
    for name, said in (("full", 50.0), ("kept", 40.0)):
        for column in experiment.columns.values():
            for score in column.scores:
                task, _, metric = score.partition("/")
                write(tmp_path / name, task.replace("*", "x"), metric, said, [{}])
        # one file holds the metrics of all tasks; those of one task are written together by the harness
        path = next((tmp_path / name).rglob("*_results.json"))
        results = json.loads(path.read_text())
        results["results"]["videochatgpt_gen"] |= {
            f"gpt_eval_score_{m},none": said for m in ("correctness", "detailed_orientation", "context")
        }
        path.write_text(json.dumps(results))
        directories.append(tmp_path / name)
    rows = compare(experiment, [full, last], directories)
    by_column = {row["column"]: row for row in rows if row["retention"] == 5}
    assert list(by_column) == [*experiment.columns, "mean"]
    assert by_column["mvbench"]["paper"] == 49.60
    assert by_column["mvbench"]["paper_share"] == pytest.approx(100 * 49.60 / 51.23)
    assert by_column["mvbench"]["share"] == pytest.approx(80)
    assert by_column["mean"]["share"] == pytest.approx(80)
    assert by_column["mean"]["paper_share"] == pytest.approx(95.8, abs=0.06)  # as printed
    assert by_column["mean"]["ours"] is None


def test_shares_that_the_paper_prints_stay_shares(tmp_path) -> None:
    experiment = load_experiment(TABLES / "table6.yaml")
    experiment = experiment.model_copy(update={"columns": {"mvbench": experiment.columns["mvbench"]}})
    directory = write(tmp_path, "mvbench_x", "mvbench_accuracy", 50, [{}])
    full, *_, last = experiment.runs
    rows = compare(experiment, [full, last], [directory, directory])
    assert [(row["paper"], row["paper_share"]) for row in rows] == [(None, None), (None, 92.7)]


def test_results_that_do_not_belong_together(tmp_path) -> None:
    column = Column(scores=("toy*/m",))
    full = write(tmp_path / "full", "toy", "m", fmean(FULL), FULL)
    with pytest.raises(InputError, match="do not hold the same documents"):
        cell(column, [full, write(tmp_path / "less", "toy", "m", fmean(FULL[:7]), FULL[:7])])
    with pytest.raises(InputError, match="hold results of other tasks"):
        cell(column, [full, write(tmp_path / "other", "toy2", "m", fmean(FULL), FULL)])
    with pytest.raises(InputError, match=r"has no score toy/n: its tasks are toy"):
        cell(Column(scores=("toy/n",)), [full, full])
