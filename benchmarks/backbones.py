"""CPU time of a forward pass of each backbone against the plainest form of the same network, batch 8, one thread.

The plain form is written out here, layer by layer, from the backbone's own weights: explicit softmax attention over
all tokens, no module in between. Both compute the same features (checked), in turn (A B A B), medians. A ratio below 1
says that the backbone is the faster one.

    python benchmarks/backbones.py [NAME ...]
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import median

import torch
import torch.nn.functional as F
from in_turn import in_turn
from torch import Tensor

from ecg_lightning.backbones import create_backbone

BATCH = 8
State = Mapping[str, Tensor]
Plain = Callable[[State, Tensor], Tensor]
"""Weights and ECG (batch, lead, time) -> features (batch, dim)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PLAIN)}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in PLAIN]
    if unknown:
        parser.error(f"no plain form of {', '.join(unknown)}: there are {', '.join(PLAIN)}")
    torch.set_num_threads(1)
    print(f"batch of {BATCH}, one thread, {arguments.rounds} rounds in turn, medians; torch {torch.__version__}")
    print(f"{'backbone':<18}{'ours, s':>10}{'plain, s':>10}{'ratio':>8}{'largest difference':>22}")
    for name in arguments.names or PLAIN:
        compare(name, arguments.rounds)


@torch.no_grad()
def compare(name: str, rounds: int) -> None:
    """One line of the table; the first round warms up and holds the outputs against each other."""
    torch.manual_seed(0)
    backbone = create_backbone(name).eval()
    state = backbone.state_dict()
    ecg = torch.randn(BATCH, len(backbone.signal.leads), backbone.signal.num_time_points)
    ways = {"ours": lambda: backbone(ecg), "plain": lambda: PLAIN[name](state, ecg)}
    difference = (ways["ours"]() - ways["plain"]()).abs().max().item()
    assert difference < 1e-4, f"{name}: the plain form computes something else, by {difference}"
    seconds = in_turn(ways, rounds)
    ours, plain = median(seconds["ours"]), median(seconds["plain"])
    print(f"{name:<18}{ours:>10.3f}{plain:>10.3f}{ours / plain:>8.2f}{difference:>22.1e}", flush=True)


# --- the plain forms ---


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def attention(state: State, name: str, x: Tensor, heads: int, unseen: Tensor | None) -> Tensor:
    """Softmax of all scores, written out; ``unseen`` (token, token) is True where a token does not see another."""
    batch, token, dim = x.shape
    q, k, v = linear(state, f"{name}.qkv", x).view(batch, token, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-2, -1) * (dim // heads) ** -0.5
    if unseen is not None:
        scores = scores.masked_fill(unseen, float("-inf"))
    mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, token, dim)
    return linear(state, f"{name}.proj", mixed)


def block(state: State, index: int, x: Tensor, *, heads: int, eps: float, unseen: Tensor | None = None) -> Tensor:
    name = f"blocks.{index}"
    x = x + attention(state, f"{name}.attn", norm(state, f"{name}.norm1", x, eps), heads, unseen)
    hidden = F.gelu(linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x, eps)))
    return x + linear(state, f"{name}.mlp.fc2", hidden)


def vit(state: State, ecg: Tensor, *, depth: int, heads: int = 3) -> Tensor:
    leads, points = state["patch_embed.proj.weight"].shape[2:]
    patches = ecg.unflatten(2, (-1, points)).unflatten(1, (-1, leads)).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
    x = F.linear(patches, state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"])
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for index in range(depth):
        x = block(state, index, x, heads=heads, eps=1e-6)
    return norm(state, "norm", x, 1e-6)[:, 0]


def st_mem(state: State, ecg: Tensor, *, heads: int) -> Tensor:
    x = norm(state, "to_patch_embedding.1", ecg.unflatten(2, (-1, 75)), 1e-5)
    x = norm(state, "to_patch_embedding.3", linear(state, "to_patch_embedding.2", x), 1e-5)
    place, separator = state["pos_embedding"][0], state["sep_embedding"]
    leads = []
    for lead in range(12):
        ends = [(separator + place[row]).expand(len(x), 1, -1) for row in (0, -1)]
        tokens = torch.cat([ends[0], x[:, lead] + place[1:31], ends[1]], dim=1)
        leads.append(tokens + state[f"lead_embeddings.{lead}"])
    x = torch.cat(leads, dim=1)
    for index in range(12):
        x = block(state, index, x, heads=heads, eps=1e-5)
    patches = [x[:, 32 * lead + 1 : 32 * lead + 31] for lead in range(12)]
    return norm(state, "norm", torch.cat(patches, dim=1).mean(dim=1), 1e-5)


def ecg_jepa(state: State, ecg: Tensor) -> Tensor:
    x = linear(state, "patch_embed", ecg.unflatten(2, (-1, 50))).flatten(1, 2)
    token = torch.arange(400)
    unseen = (token.unsqueeze(1) // 50 != token // 50) & (token.unsqueeze(1) % 50 != token % 50)
    for index in range(12):
        x = block(state, index, x + state["pos_embed"], heads=16, eps=1e-5, unseen=unseen)
    return norm(state, "norm", x, 1e-5).mean(dim=1)


def net1d(state: State, ecg: Tensor) -> Tensor:
    x = F.silu(same_conv(state, "first_conv", ecg, stride=2))
    for stage, blocks in enumerate((2, 2, 2, 3, 3, 4, 4)):
        for place in range(blocks):
            x = net1d_block(state, f"stage_list.{stage}.block_list.{place}", x, first=stage == place == 0)
    return x.mean(dim=2)


def net1d_block(state: State, name: str, x: Tensor, *, first: bool) -> Tensor:
    stride = 2 if ".block_list.0" in name else 1
    y = same_conv(state, f"{name}.conv1", x if first else F.silu(x))
    y = same_conv(state, f"{name}.conv2", F.silu(y), stride, groups=y.shape[1] // 16)
    y = same_conv(state, f"{name}.conv3", F.silu(y))
    weight = linear(state, f"{name}.se_fc2", F.silu(linear(state, f"{name}.se_fc1", y.mean(dim=2)))).sigmoid()
    shortcut = F.max_pool1d(F.pad(x, (0, 1)), 2, 2) if stride == 2 else x
    missing = y.shape[1] - x.shape[1]
    return y * weight.unsqueeze(2) + F.pad(shortcut, (0, 0, missing // 2, missing - missing // 2))


def same_conv(state: State, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
    total = max(0, (-(-x.shape[2] // stride) - 1) * stride + weight.shape[2] - x.shape[2])
    return F.conv1d(F.pad(x, (total // 2, total - total // 2)), weight, bias, stride, groups=groups)


def wav2vec(state: State, channels: Tensor, *, heads: int, strides: tuple[int, ...]) -> Tensor:
    """``channels`` (batch, channel, time): what the front end reads."""
    x = channels
    for layer, stride in enumerate(strides):
        x = F.conv1d(x, state[f"front_end.convs.{layer}.weight"], stride=stride)
        if layer == 0:
            x = F.group_norm(x, x.shape[1], state["front_end.norm.weight"], state["front_end.norm.bias"])
        x = F.gelu(x)
    x = linear(state, "projection", norm(state, "projection_norm", x.transpose(1, 2), 1e-5))
    direction = state["positions.direction"]
    weight = state["positions.magnitude"] * direction / direction.square().sum(dim=(0, 1), keepdim=True).sqrt()
    places = F.conv1d(x.transpose(1, 2), weight, state["positions.bias"], padding=64, groups=16)[..., :-1]
    x = norm(state, "norm", x + F.gelu(places).transpose(1, 2), 1e-5)
    for index in range(sum(name.endswith("attn.q.weight") for name in state)):
        x = post_norm_block(state, f"blocks.{index}", x, heads)
    return x.mean(dim=1)


def post_norm_block(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (linear(state, f"{name}.attn.{part}", x).unflatten(-1, (heads, -1)).transpose(1, 2) for part in "qkv")
    mixed = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v
    x = norm(state, f"{name}.norm1", x + linear(state, f"{name}.attn.out", mixed.transpose(1, 2).flatten(-2)), 1e-5)
    hidden = F.gelu(linear(state, f"{name}.mlp.fc1", x))
    return norm(state, f"{name}.norm2", x + linear(state, f"{name}.mlp.fc2", hidden), 1e-5)


def hubert_ecg(state: State, ecg: Tensor, *, heads: int) -> Tensor:
    return wav2vec(state, ecg.flatten(1).unsqueeze(1), heads=heads, strides=(4, 2, 2, 2, 2))


def multiresnet(state: State, ecg: Tensor) -> Tensor:
    x = F.conv1d(ecg, state["stem.weight"], state["stem.bias"])
    for index in range(6):
        name = f"blocks.{index}"
        y = F.gelu(multiresolution(state, f"{name}.layer", x))
        y = F.glu(F.conv1d(y, state[f"{name}.mix.weight"], state[f"{name}.mix.bias"]), dim=1)
        x = norm(state, f"{name}.norm", (x + y).transpose(1, 2), 1e-5).transpose(1, 2)
    return x.mean(dim=2)


def multiresolution(state: State, name: str, x: Tensor) -> Tensor:
    """Two dilated convolutions a level."""
    weights = state[f"{name}.weights"]
    y = weights[:, -1:] * x
    for level in range(10):
        past = F.pad(x, (2**level, 0))
        low, high = (F.conv1d(past, state[f"{name}.{part}"], dilation=2**level, groups=128) for part in ("low", "high"))
        y, x = y + weights[:, 10 - level, None] * high, low
    return y + weights[:, :1] * x


def s4(state: State, ecg: Tensor) -> Tensor:
    """As the published S4D layer: complex Vandermonde matrix, each direction convolved by its own FFTs."""
    x = linear(state, "encoder", ecg.transpose(1, 2))
    for index in range(4):
        name = f"blocks.{index}"
        u = x.transpose(1, 2)
        ahead, behind = s4d_kernels(state, f"{name}.ssm", u.shape[2])
        y = causal(u, ahead) + F.pad(causal(u.flip(2), behind).flip(2)[..., 1:], (0, 1))
        y = F.gelu(y + u * state[f"{name}.ssm.D"].unsqueeze(-1)).transpose(1, 2)
        x = norm(state, f"{name}.norm", x + F.glu(linear(state, f"{name}.mix", y)), 1e-5)
    return x.mean(dim=1)


def s4d_kernels(state: State, name: str, points: int) -> Tensor:
    dt = state[f"{name}.log_dt"].exp().unsqueeze(-1)
    poles = torch.complex(-state[f"{name}.log_A_real"].exp(), state[f"{name}.A_imag"])
    weights = torch.view_as_complex(state[f"{name}.C"]) * ((dt * poles).exp() - 1) / poles
    powers = ((dt * poles).unsqueeze(-1) * torch.arange(points)).exp()
    return 2 * torch.einsum("kdn,dnt->kdt", weights, powers).real


def causal(u: Tensor, kernel: Tensor) -> Tensor:
    points = u.shape[2]
    product = torch.fft.rfft(u, n=2 * points) * torch.fft.rfft(kernel, n=2 * points)
    return torch.fft.irfft(product, n=2 * points)[..., :points]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def conv_norm(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.0.weight"]
    return batch_norm(state, f"{name}.1", F.conv1d(x, weight, stride=stride, padding=weight.shape[2] // 2))


def xresnet1d(state: State, ecg: Tensor) -> Tensor:
    x = ecg
    for layer in range(3):
        x = F.relu(conv_norm(state, f"stem.{layer}", x, stride=1 if layer else 2))
    x = F.max_pool1d(x, 3, stride=2, padding=1)
    for stage, blocks in enumerate((3, 4, 23, 3)):
        for place in range(blocks):
            name, stride = f"stages.{stage}.{place}", 2 if stage and not place else 1
            y = F.relu(conv_norm(state, f"{name}.convs.0", x))
            y = F.relu(conv_norm(state, f"{name}.convs.1", y, stride))
            y = conv_norm(state, f"{name}.convs.2", y)
            x = F.avg_pool1d(x, 2, ceil_mode=True) if stride == 2 else x
            x = F.relu(y + (conv_norm(state, f"{name}.projection", x) if stage == place == 0 else x))
    return torch.cat([x.amax(dim=2), x.mean(dim=2)], dim=1)


def inception1d(state: State, ecg: Tensor) -> Tensor:
    x = ecg
    for block in range(2):
        before = x
        for module in range(3):
            name = f"blocks.{block}.inceptions.{module}"
            narrow = F.conv1d(x, state[f"{name}.bottleneck.weight"])
            weights = [state[f"{name}.convs.{path}.weight"] for path in range(3)]
            paths = [F.conv1d(narrow, weight, padding=weight.shape[2] // 2) for weight in weights]
            pooled = F.conv1d(F.max_pool1d(x, 3, stride=1, padding=1), state[f"{name}.pooled_conv.weight"])
            x = F.relu(batch_norm(state, f"{name}.norm", torch.cat([*paths, pooled], dim=1)))
        x = F.relu(x + conv_norm(state, f"blocks.{block}.projection", before))
    return torch.cat([x.amax(dim=2), x.mean(dim=2)], dim=1)


def chimera_head(state: State, name: str, x: Tensor) -> Tensor:
    """Both directions over the leads, cell after cell; states (batch, state, channel)."""
    d1, d2 = F.softplus(linear(state, f"{name}.to_steps", x)).unsqueeze(-2).chunk(2, dim=-1)
    b1, b2, c1, c2 = linear(state, f"{name}.to_matrices", x).unsqueeze(-1).chunk(4, dim=-2)
    rates, couplings = state[f"{name}.log_rates"].exp(), state[f"{name}.couplings"].tanh()
    y, (leads, points) = state[f"{name}.skip"] * x, x.shape[1:3]
    for lead_order in (range(leads), range(leads - 1, -1, -1)):
        above1 = above2 = [torch.zeros(())] * points
        for lead in lead_order:
            past1 = past2 = torch.zeros(())
            states1, states2 = [], []
            for t in range(points):
                at = slice(None), lead, t
                keep1, keep2, value = torch.exp(-d1[at] * rates[0]), torch.exp(-d2[at] * rates[1]), x[at].unsqueeze(-2)
                h1 = keep1 * past1 + (1 - keep1) * (couplings[0] * past2 + b1[at] * value)
                h2 = keep2 * above2[t] + (1 - keep2) * (couplings[1] * above1[t] + b2[at] * value)
                y[at] += (c1[at] * h1 + c2[at] * h2).sum(-2)
                past1, past2 = h1, h2
                states1.append(h1)
                states2.append(h2)
            above1, above2 = states1, states2
    return y


def chimera(state: State, ecg: Tensor) -> Tensor:
    x = linear(state, "patch_embed", ecg.unflatten(2, (-1, 8))) + state["lead_embed"]
    for index in range(4):
        name = f"blocks.{index}"
        z, gate = linear(state, f"{name}.to_branches", norm(state, f"{name}.norm", x, 1e-5)).chunk(2, dim=-1)
        taps, points = state[f"{name}.conv.weight"][:, 0], z.shape[2]
        padded = F.pad(z, (0, 0, taps.shape[1] - 1, 0))
        shifted = sum(padded[:, :, k : k + points] * taps[:, k] for k in range(taps.shape[1]))
        long_term, seasonal = F.silu(shifted + state[f"{name}.conv.bias"]).chunk(2, dim=-1)
        y = [chimera_head(state, f"{name}.long_term", long_term), chimera_head(state, f"{name}.seasonal", seasonal)]
        x = x + linear(state, f"{name}.out", torch.cat(y, dim=-1) * F.silu(gate))
    return norm(state, "norm", x, 1e-5).flatten(1, 2).mean(dim=1)


PLAIN: dict[str, Plain] = {
    "vit": lambda state, ecg: vit(state, ecg, depth=6),
    "mtecg_ti": lambda state, ecg: vit(state, ecg, depth=12),
    "chimera": chimera,
    "ecgfounder": net1d,
    "ecgfounder_1lead": net1d,
    "st_mem_small": lambda state, ecg: st_mem(state, ecg, heads=6),
    "st_mem_base": lambda state, ecg: st_mem(state, ecg, heads=12),
    "ecg_jepa_base": ecg_jepa,
    "hubert_ecg_small": lambda state, ecg: hubert_ecg(state, ecg, heads=8),
    "hubert_ecg_base": lambda state, ecg: hubert_ecg(state, ecg, heads=12),
    "hubert_ecg_large": lambda state, ecg: hubert_ecg(state, ecg, heads=12),
    "multiresnet": multiresnet,
    "s4": s4,
    "ecg_fm_base": lambda state, ecg: wav2vec(state, ecg, heads=12, strides=(2, 2, 2, 2)),
    "xresnet1d101": xresnet1d,
    "inception1d": inception1d,
}
"""One entry a network; write a new one from the weights alone, without the package's modules."""

if __name__ == "__main__":
    main()
