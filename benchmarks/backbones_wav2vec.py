"""CPU forward time of the wav2vec networks against the plainest form of the same network, with its softmax written out.

    python benchmarks/backbones_wav2vec.py [--names ecg_fm_base ...] [--batch 8] [--rounds 5]

Prints, per network, the largest difference of the features, the median seconds of both, and their ratio.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_lightning.backbones import create_backbone
from ecg_lightning.backbones.wav2vec import Wav2Vec

NAMES = ["hubert_ecg_small", "hubert_ecg_base", "hubert_ecg_large", "ecg_fm_base"]


def plain_features(backbone: Wav2Vec, ecg: Tensor) -> Tensor:
    """The features from the state dict and functions alone, (batch, lead, time) -> (batch, dim)."""
    state, strides = backbone.state_dict(), [conv.stride[0] for conv in backbone.front_end.convs]
    heads = backbone.blocks[0].attn.heads

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    x = backbone.channels(ecg)
    for layer, stride in enumerate(strides):
        x = F.conv1d(x, state[f"front_end.convs.{layer}.weight"], stride=stride)
        if layer == 0:
            x = F.group_norm(x, x.shape[1], state["front_end.norm.weight"], state["front_end.norm.bias"])
        x = F.gelu(x)
    x = linear(norm(x.transpose(1, 2), "projection_norm"), "projection")
    direction = state["positions.direction"]
    weight = state["positions.magnitude"] * direction / direction.square().sum(dim=(0, 1), keepdim=True).sqrt()
    places = F.conv1d(x.transpose(1, 2), weight, state["positions.bias"], padding=64, groups=16)[..., :-1]
    x = norm(x + F.gelu(places).transpose(1, 2), "norm")
    for block in range(len(backbone.blocks)):
        name = f"blocks.{block}"
        parts = (linear(x, f"{name}.attn.{part}").unflatten(-1, (heads, -1)).transpose(1, 2) for part in "qkv")
        q, k, v = parts
        mixed = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v
        x = norm(x + linear(mixed.transpose(1, 2).flatten(-2), f"{name}.attn.out"), f"{name}.norm1")
        x = norm(x + linear(F.gelu(linear(x, f"{name}.mlp.fc1")), f"{name}.mlp.fc2"), f"{name}.norm2")
    return x.mean(dim=1)


def seconds(run: Callable[[Tensor], Tensor], ecg: Tensor) -> float:
    start = perf_counter()
    run(ecg)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        torch.manual_seed(0)
        backbone = create_backbone(name).eval()
        ecg = torch.randn(given.batch, 12, backbone.signal.num_time_points)
        with torch.no_grad():
            difference = (backbone(ecg) - plain_features(backbone, ecg)).abs().max().item()
            # Turn by turn, so that a busy neighbour slows both.
            times = [
                (seconds(backbone, ecg), seconds(lambda ecg, net=backbone: plain_features(net, ecg), ecg))
                for _ in range(given.rounds)
            ]
        ours, plain = (median(column) for column in zip(*times, strict=True))
        ratio = median(own / other for own, other in times)
        print(f"{name}: difference {difference:.1e}, {ours:.3f} s, plain {plain:.3f} s, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
