"""Running the stages: seeded, resumable, one checkpoint file for each stage."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from llava_scissor.demo.curriculum import STAGES, DemoNetwork, Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """How a run is done; of these, only the seed is meant to change what is learnt.

    Attributes:
        seed: of the initial weights and of every batch; a resumed run sees the batches it would have seen.
        save_every: steps between checkpoints.
        scale: factor on the number of steps; below one for a trial of the whole chain.
        device: where the network is trained. Another device sums in another order, so that the weights
            differ in their last digits at first and more later.
        num_workers: processes that make batches ahead; 0 makes them between the steps.
    """

    seed: int = 0
    save_every: int = 50
    scale: float = 1.0
    device: str = "cpu"
    num_workers: int = 1


def train(run_dir: Path, settings: RunSettings | None = None) -> DemoNetwork:
    """Run every stage that is not finished yet, from where its checkpoint stopped.

    Args:
        run_dir: where the checkpoints are kept.
        settings: seed, device and the like.

    Returns:
        The trained network in evaluation mode.
    """
    settings = settings or RunSettings()
    run_dir.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = DemoNetwork().to(settings.device)
    for index, stage in enumerate(STAGES):
        _run_stage(network, stage, index, run_dir / f"{stage.name}.pt", settings)
    return network.eval()


@dataclass(frozen=True)
class Batches(Dataset):
    """The batches of a stage, by step; every sample of every step has a seed of its own."""

    stage: Stage
    seeds: tuple[int, int]

    def __getitem__(self, step: int) -> tuple:
        """Make the batch of one step."""
        samples = range(self.stage.batch_size)
        return self.stage.make_batch([np.random.default_rng((*self.seeds, step, i)) for i in samples])


def _run_stage(network: DemoNetwork, stage: Stage, index: int, path: Path, settings: RunSettings) -> None:
    parameters = _select(network, stage.parts)
    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    first, steps = 0, max(1, round(stage.steps * settings.scale))
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=settings.device)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    elif stage.use_stored:
        with torch.no_grad():  # parameters only: a checkpoint has no rotary table
            for parameter in network.parameters():
                parameter.copy_(parameter.half())
    batches = DataLoader(
        Batches(stage, (settings.seed, index)),
        batch_size=None,
        sampler=range(first, steps),
        num_workers=settings.num_workers,
        pin_memory=torch.device(settings.device).type == "cuda",
        generator=torch.Generator(),  # of seeds for the workers, which use none; the global one stays as it is
    )
    reported = []
    for step, batch in enumerate(batches, first):
        progress = step / steps
        reported.append(_step(network, stage, _move(batch, settings.device), optimizer, parameters, progress))
        if (step + 1) % settings.save_every == 0 or step + 1 == steps:
            loss, score = torch.stack(reported).mean(0).tolist()
            logger.info("%s %d/%d loss %.4f score %.4f", stage.name, step + 1, steps, loss, score)
            reported.clear()
            _save(path, network, optimizer, step + 1)


def _move(batch, device: str):
    """Put the tensors of a tuple, and of the tuples in it, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    parts = [_move(part, device) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


def _step(network, stage: Stage, batch, optimizer, parameters, progress: float) -> Float[Tensor, 2]:
    """Take one step at the rate of a short warm-up and a cosine decay; returns loss and score."""
    warm_up = min(1.0, (progress * stage.steps + 1) / 50)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
    with torch.autocast(network.image_newline.device.type, torch.bfloat16):
        loss, score = stage.loss(network, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return torch.stack([loss, score]).detach()


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
