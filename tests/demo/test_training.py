from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from llava_scissor.demo import curriculum, training
from llava_scissor.demo.curriculum import NUM_CELLS, NUM_PATCHES, STAGES, DemoNetwork, cells_of
from llava_scissor.demo.packing import PackedQuestions
from llava_scissor.demo.scenes import NUM_STEPS, sample_scene
from llava_scissor.demo.training import Batches, RunSettings

BATCH = 2
SHORT = tuple(replace(stage, steps=2, batch_size=BATCH) for stage in STAGES)
TOKENS_PER_FRAME = NUM_CELLS**2
WHOLE_VIDEO = NUM_STEPS * TOKENS_PER_FRAME
VISUAL_TOKENS = {"tower": None, "projector": None, "small-symbols": 16, "frame-symbols": TOKENS_PER_FRAME}
"""What the language model is given, the newline not counted; a stage not named is given a whole video."""
FRAMES = {"tower": 2 * BATCH, "projector": BATCH}
"""How many frames go through the tower; a stage not named draws whole videos, if it draws at all."""

pytestmark = pytest.mark.usefixtures("one_thread")
by_name = pytest.mark.parametrize("index", range(len(STAGES)), ids=[stage.name for stage in STAGES])


class Stopped(Exception):
    """Stands for Ctrl-C and for a machine that goes away."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The state of every stage's checkpoint after a run without interruption, and the network it returned."""
    run_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STAGES", SHORT)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        network = training.train(run_dir, RunSettings(seed=3))
        torch.set_num_threads(before)
    states = {stage.name: torch.load(run_dir / f"{stage.name}.pt", weights_only=True) for stage in SHORT}
    return states, network


def random_state(seed: int = 3) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DemoNetwork().state_dict()


def differing(one: dict, other: dict) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def test_an_interrupted_run_ends_with_the_same_weights(finished, tmp_path, monkeypatch) -> None:
    """Stopped in the second step of every stage, and once between two stages."""
    monkeypatch.setattr(training, "STAGES", SHORT)
    take_step, taken = training._step, []

    def step_once(network, stage, *rest):
        if (stage.name, "stopped") not in taken and (stage.name, "step") in taken:
            taken.append((stage.name, "stopped"))
            raise Stopped
        taken.append((stage.name, "step"))
        return take_step(network, stage, *rest)

    monkeypatch.setattr(training, "_step", step_once)
    for _ in SHORT:
        with pytest.raises(Stopped):
            training.train(tmp_path, RunSettings(seed=3, save_every=1))
    network = training.train(tmp_path, RunSettings(seed=3, save_every=1, num_workers=0))
    states, uninterrupted = finished
    assert taken.count((SHORT[0].name, "step")) == 2, "a step that was saved is not taken again"
    assert differing(network.state_dict(), uninterrupted.state_dict()) == set()
    assert differing(network.state_dict(), states[SHORT[-1].name]["network"]) == set()


def test_a_finished_run_is_only_read(finished, tmp_path, monkeypatch) -> None:
    states, uninterrupted = finished
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pt")
    monkeypatch.setattr(training, "STAGES", SHORT)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("a step was taken"))
    network = training.train(tmp_path, RunSettings(seed=3))
    assert differing(network.state_dict(), uninterrupted.state_dict()) == set()
    assert not network.training


@by_name
def test_a_stage_changes_its_parts_only(finished, index: int) -> None:
    states, _ = finished
    stage = SHORT[index]
    before = states[SHORT[index - 1].name]["network"] if index else random_state()
    after = states[stage.name]["network"]
    if stage.use_stored:
        before = {name: tensor.half().to(tensor.dtype) for name, tensor in before.items()}
    changed = differing(before, after)
    assert {name.split(".")[0] for name in changed} == set(stage.parts)
    assert states[stage.name]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_the_seed_decides_the_weights(finished, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "STAGES", SHORT[:1])
    states, _ = finished
    of_seed = {seed: training.train(tmp_path / str(seed), RunSettings(seed)).state_dict() for seed in (3, 4)}
    assert differing(of_seed[3], states[SHORT[0].name]["network"]) == set()
    assert "vision_tower.embeddings.patch_embedding.weight" in differing(of_seed[3], of_seed[4])


def test_every_sample_is_drawn_from_a_seed_of_its_own() -> None:
    whole_video = SHORT[[stage.name for stage in SHORT].index("video-symbols")]
    places = [((0, 3), 0), ((0, 3), 1), ((0, 4), 0), ((1, 3), 0)]  # seed and stage, step
    drawn = [Batches(whole_video, seeds)[step][0].share for seeds, step in places]
    assert len({sample.numpy().tobytes() for batch in drawn for sample in batch}) == len(places) * BATCH
    again = Batches(whole_video, places[1][0])[places[1][1]]
    torch.testing.assert_close(again[0].share, drawn[1], rtol=0, atol=0)


def test_training_leaves_the_global_generator_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "STAGES", SHORT[:1])
    before = torch.get_rng_state()
    training.train(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_scale_shortens_every_stage(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "STAGES", tuple(replace(stage, batch_size=1) for stage in STAGES))
    training.train(tmp_path, RunSettings(scale=0.001))
    for stage in STAGES:
        done = torch.load(tmp_path / f"{stage.name}.pt", weights_only=True)["step"]
        assert done == max(1, round(stage.steps / 1000))


@by_name
def test_every_stage_sees_all_tokens(network, index: int) -> None:
    """Counted where they arrive: at the tower's blocks, behind the projector, at the language model."""
    stage, frames, projected, sequences = SHORT[index], [], [], []
    hooks = [
        network.vision_tower.encoder.register_forward_pre_hook(
            lambda _, __, given: frames.append(given["inputs_embeds"].shape[:2]), with_kwargs=True
        ),
        network.projector.register_forward_hook(lambda _, __, out: projected.append(out.shape[:2])),
        network.language_model.model.register_forward_pre_hook(
            lambda _, __, given: sequences.append(given["inputs_embeds"].shape[:2]), with_kwargs=True
        ),
    ]
    with torch.no_grad():
        batch = Batches(stage, (0, index))[0]
        stage.loss(network, batch)
    for hook in hooks:
        hook.remove()

    rendered = FRAMES.get(stage.name, NUM_STEPS * BATCH)
    all_patches = [] if stage.name.endswith("symbols") else [(rendered, NUM_PATCHES**2)]
    assert frames == all_patches
    assert projected == ([] if stage.name == "tower" else all_patches)
    opening = len(network.tokenizer("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n").input_ids)
    opening += len(network.tokenizer("<|im_start|>user\n").input_ids)
    newline = 1
    text = batch[1].ids.shape[1] if isinstance(batch[1], PackedQuestions) else None
    visual = [(rows, length - opening - newline - text) for rows, length in sequences]
    num_visual = VISUAL_TOKENS.get(stage.name, WHOLE_VIDEO)
    assert visual == ([] if num_visual is None else [(BATCH, num_visual)])


def test_projected_tokens_are_those_of_the_loaded_model(network, untrained) -> None:
    """Training and inference take the same way through tower, projector and pooling."""
    rng = np.random.default_rng(0)
    frames = curriculum.render(sample_scene(rng), rng, curriculum.IMAGE_SIZE, np.linspace(0, 1, 3))
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        trained_on = network.project(network.patches(torch.from_numpy(frames)))
        loaded = untrained.encode_video(pixels)
    assert loaded.shape == (3, TOKENS_PER_FRAME, 192)
    scale = trained_on.abs().max()
    assert (trained_on - loaded).abs().max() < 0.01 * scale  # the checkpoint rounds weights to float16


def test_symbols_are_the_words_of_what_a_cell_shows(network) -> None:
    scene = curriculum._small_picture(np.random.default_rng(1))
    with torch.no_grad():
        grid = network.symbols(cells_of([scene], np.zeros(1)))[0].unflatten(0, (NUM_CELLS, NUM_CELLS))
        embed = network.language_model.get_input_embeddings().weight
        place = network.rows_and_columns[0, :, None] + network.rows_and_columns[1, None]
    ids = {word: i for i, word in enumerate(curriculum.words())}
    seen = 0
    for row in range(NUM_CELLS):
        for column in range(NUM_CELLS):
            middle = ((column + 0.5) / NUM_CELLS, (row + 0.5) / NUM_CELLS)
            mine = [o for o in scene.objects if np.allclose(o.begin, middle)]
            expected = embed[ids[scene.background]]
            if mine:
                expected = embed[ids[mine[0].color]] + embed[ids[mine[0].kind]]
                seen += 1
            elif any(max(abs(np.subtract(o.begin, middle))) < 1.1 / NUM_CELLS for o in scene.objects):
                continue  # a neighbour, covered at its edge
            torch.testing.assert_close(grid[row, column], expected + 0.7 * place[row, column])
    assert seen == len(scene.objects)
