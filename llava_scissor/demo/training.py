"""Running the stages: seeded, resumable, one checkpoint file for each stage."""

from __future__ import annotations

import logging
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from llava_scissor.demo.curriculum import STAGES, DemoNetwork, Stage

logger = logging.getLogger(__name__)


def train(run_dir: Path, seed: int = 0, save_every: int = 50, scale: float = 1.0) -> DemoNetwork:
    """Run every stage that is not finished yet, from where its checkpoint stopped.

    Args:
        run_dir: where the checkpoints are kept.
        seed: of the initial weights and of every batch; a resumed run sees the batches it would have seen.
        save_every: steps between checkpoints.
        scale: factor on the number of steps; below one for a trial of the whole chain.

    Returns:
        The trained network in evaluation mode.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DemoNetwork()
    for index, stage in enumerate(STAGES):
        steps = max(1, round(stage.steps * scale))
        _run_stage(network, stage, steps, run_dir / f"{stage.name}.pt", (seed, index), save_every)
    return network.eval()


def _run_stage(
    network: DemoNetwork, stage: Stage, steps: int, path: Path, seeds: tuple[int, int], save_every: int
) -> None:
    parameters = _select(network, stage.parts)
    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    losses, scores = deque(maxlen=50), deque(maxlen=50)
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(_make_batch, stage, seeds, first)
        for step in range(first, steps):
            batch = upcoming.result()
            upcoming = pool.submit(_make_batch, stage, seeds, step + 1)
            loss, score = _step(network, stage, batch, optimizer, parameters, step / steps)
            losses.append(loss)
            scores.append(score)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                mean = (sum(losses) / len(losses), sum(scores) / len(scores))
                logger.info("%s %d/%d loss %.4f score %.4f", stage.name, step + 1, steps, *mean)
                _save(path, network, optimizer, step + 1)


def _step(network, stage: Stage, batch, optimizer, parameters, progress: float) -> tuple[float, float]:
    """Take one step at the rate of a short warm-up and a cosine decay."""
    warm_up = min(1.0, (progress * stage.steps + 1) / 50)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        loss, score = stage.loss(network, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item(), score


def _make_batch(stage: Stage, seeds: tuple[int, int], step: int):
    return stage.make_batch([np.random.default_rng((*seeds, step, i)) for i in range(stage.batch_size)])


def _select(network: DemoNetwork, parts: tuple[str, ...]) -> list[nn.Parameter]:
    """Return the trained parameters and freeze all others."""
    chosen = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in parts)
        parameter.grad = None
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


def _save(path: Path, network: DemoNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write a checkpoint such that an interruption leaves the previous one whole."""
    partial = path.with_suffix(".partial")
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(path)
