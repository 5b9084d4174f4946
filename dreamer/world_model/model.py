"""MultimodalWorldModel: encoders, RSSM, decoders, reward and continue heads, and their losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from dreamer.modalities import MODALITY_CONFIGS, by_modality, make_decoder, make_encoder
from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.fusion import AttentionFusion, Sense, concatenate
from dreamer.modalities.presence import Present, flags_of, sensed
from dreamer.modalities.text import TextConfig
from dreamer.modality_configs import recon_weights
from dreamer.nn.layers import Linear
from dreamer.nn.noise import derive_seed
from dreamer.types import (
    Batch,
    ConfigError,
    Decoder,
    Encoder,
    EnvSpec,
    LatentState,
    Losses,
    Metrics,
    Replayed,
    check_range,
)
from dreamer.world_model.heads import ContinueHead, ScalarHead
from dreamer.world_model.rssm import RSSM, SIZES, Observed, flat_stoch, kl_losses

DYN_SCALE = 1.0
REP_SCALE = 0.1


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """What is tuned about the world model.

    Attributes:
        size: Name in `SIZES`.
        kl_scale: Multiplies both KL losses. free_nats: Nats per step without KL gradient.
        recon_scale: Multiplies every reconstruction loss.
        modality_scales: Modality -> factor of its reconstruction losses, beside `recon_scale`; 1
            for those that are not named.
        reward_scale: Multiplies the reward loss; where much is sensed that does not matter, its
            reconstruction drowns what little says how a reward comes about.
        reward_outscale: Of the initial weights of the reward head's output, see `ScalarHead`; 0 in
            the paper.
        cont_scale: Multiplies the continue loss; ends are rare where episodes are long.
        discount_horizon: The continue head is taught 1 - 1 / discount_horizon where the episode
            goes on.
        world_lr: Learning rate.
        fusion: `attention` between the modalities, where there are several, or `concat`.
        modality_dropout: Share of the sequences in which one modality, each as likely, is taken
            away in training, so that the agent bears a sensor that fails.
        embed_dim: Width of a linear projection of the fused code, or `auto` for none.
        text: How texts are read. audio: How sounds are heard.
    """

    size: str
    kl_scale: float
    free_nats: float
    recon_scale: float
    modality_scales: Mapping[str, float]
    reward_scale: float
    reward_outscale: float
    cont_scale: float
    discount_horizon: float
    world_lr: float
    fusion: Literal["attention", "concat"]
    modality_dropout: float
    embed_dim: int | Literal["auto"]
    text: TextConfig
    audio: AudioConfig

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.size not in SIZES:
            raise ConfigError("size", self.size, f"one of {list(SIZES)}")
        check_range("kl_scale", self.kl_scale, 0.0, 100.0)
        check_range("free_nats", self.free_nats, 0.0, 100.0)
        check_range("recon_scale", self.recon_scale, 0.0, 1000.0)
        for name, scale in self.modality_scales.items():
            check_range(f"modality_scales.{name}", scale, 0.0, 1000.0)
        check_range("reward_scale", self.reward_scale, 0.0, 1000.0)
        check_range("reward_outscale", self.reward_outscale, 0.0, 10.0)
        check_range("cont_scale", self.cont_scale, 0.0, 1000.0)
        check_range("discount_horizon", self.discount_horizon, 2.0, 1e6)
        check_range("world_lr", self.world_lr, 0.0, 1.0)
        if self.fusion not in ("attention", "concat"):
            raise ConfigError("fusion", self.fusion, "attention or concat")
        check_range("modality_dropout", self.modality_dropout, 0.0, 1.0)
        if self.embed_dim != "auto":
            check_range("embed_dim", self.embed_dim, 1, 65536)

    @property
    def discount(self) -> float:
        """Discount per step."""
        return 1.0 - 1.0 / self.discount_horizon


class WorldOutput(NamedTuple):
    """Posterior scan of one batch: `embed` (T, B, E) and `feat` (T, B, F) with gradient, the scan,
    losses and metrics.
    """

    embed: Tensor
    feat: Tensor
    observed: Observed
    losses: Losses
    metrics: Metrics

    def replayed(self, batch: Batch) -> Replayed:
        """What learners beside the world model may see of the scan of a batch."""
        action, is_first = batch.action.transpose(0, 1), batch.is_first.transpose(0, 1)
        return Replayed(self.embed.detach(), self.feat.detach(), action, is_first)


class MultimodalWorldModel(nn.Module):
    """DreamerV3 world model for any mixture of modalities.

    Args:
        spec: Observations and actions of the environment.
        config: What is tuned.
        seed: Seed of the initial weights; every part draws from a stream of its own name.

    Source: arXiv 2301.04104 v2, "World model learning".
    """

    def __init__(self, spec: EnvSpec, config: WorldModelConfig, seed: int) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        size = SIZES[config.size]
        groups, own = by_modality(spec.obs), {"text": (config.text,)}
        heard = own | {"audio": (config.audio,)}  # no matter how: its spectrum is predicted
        self.flags = flags_of(groups, spec.obs)
        self.flags_by_modality = {
            name: [self.flags[key] for key in keys if key in self.flags]
            for name, keys in groups.items()
        }
        self.recon_weights = recon_weights(groups, config.modality_scales)
        self.encoders = nn.ModuleDict(
            {
                name: make_encoder(
                    MODALITY_CONFIGS[name],
                    keys,
                    size,
                    init(seed, f"encoder/{name}"),
                    *heard.get(name, ()),
                )
                for name, keys in groups.items()
            }
        )
        senses = {name: sense_of(cast(Encoder, each)) for name, each in self.encoders.items()}
        self.fusion = None
        if config.fusion == "attention" and len(senses) > 1:
            self.fusion = AttentionFusion(senses, size.units, init(seed, "fusion"))
        width = sum(sense.tokens * sense.width for sense in senses.values())
        self.project = None
        if config.embed_dim != "auto":
            self.project = Linear(width, config.embed_dim, init(seed, "project"))
            width = config.embed_dim
        self.embed_dim = width
        self.rssm = RSSM(size, width, spec.action.dim, init(seed, "rssm"))
        feat_dim = self.rssm.feat_dim
        self.decoders = nn.ModuleDict(
            {
                name: make_decoder(
                    MODALITY_CONFIGS[name],
                    keys,
                    size,
                    feat_dim,
                    init(seed, f"decoder/{name}"),
                    *own.get(name, ()),
                )
                for name, keys in groups.items()
            }
        )
        self.reward = ScalarHead(
            feat_dim, size.units, 1, init(seed, "reward"), config.reward_outscale
        )
        self.cont = ContinueHead(feat_dim, size.units, 1, init(seed, "cont"))

    @property
    def feat_dim(self) -> int:
        """F."""
        return self.rssm.feat_dim

    def feat(self, state: LatentState) -> Tensor:
        """State -> (..., F): deter, then stoch class-major."""
        return torch.cat([state.deter, flat_stoch(state)], -1)

    def encode(self, obs: Mapping[str, Tensor], allowed: Present | None = None) -> Tensor:
        """Observations (..., *) -> embed (..., E).

        Args:
            obs: Key -> (..., *).
            allowed: Modality -> (...) bool, whether it may be used; None: all.
        """
        parts = {name: encoder(obs) for name, encoder in self.encoders.items()}
        present = sensed(self.flags_by_modality, obs, allowed)
        fuse = concatenate if self.fusion is None else self.fusion
        embed = fuse(parts, present)
        return embed if self.project is None else self.project(embed)

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """Features (..., F) -> key -> observations in their own units."""
        decoded: dict[str, Tensor] = {}
        for decoder in self._decoders():
            decoded |= decoder.decode(feat)
        return decoded

    def observe_step(
        self,
        obs: Mapping[str, Tensor],
        state: LatentState,
        prev_action: Tensor,
        is_first: Tensor,
        noise: Tensor,
        allowed: Present | None = None,
    ) -> LatentState:
        """Filter one step while acting: the scan of length one.

        Args:
            obs: key -> (B, *). state: Latent before the step. prev_action: (B, A).
            is_first: (B,) bool. noise: (B, S) uniform.
            allowed: Modality -> (B,) bool, see `encode`.
        """
        embed = self.encode(obs, allowed)
        scan = self.rssm.observe(embed[None], prev_action[None], is_first[None], state, noise[None])
        return self.rssm.latent(scan.deter[0], scan.stoch[0])

    def forward(self, batch: Batch, noise: Tensor, allowed: Present | None = None) -> WorldOutput:
        """Posterior scan and world-model losses of a batch.

        Args:
            batch: (B, T) sequences. noise: (T, B, S) uniform.
            allowed: Modality -> (B,) bool, see `encode`; what is taken away is still predicted.

        Returns:
            Features, scan, losses named dyn, rep, reward, cont and recon/<key>, all (T, B).
        """
        timed = {key: value.transpose(0, 1) for key, value in batch.obs.items()}
        if allowed is not None:
            lead = batch.reward.transpose(0, 1).shape
            allowed = {name: mark.expand(lead) for name, mark in allowed.items()}
        embed = self.encode(timed, allowed)
        prev_action, is_first = batch.prev_action.transpose(0, 1), batch.is_first.transpose(0, 1)
        observed = self.rssm.observe(embed, prev_action, is_first, batch.state, noise)
        feat = torch.cat([observed.deter, observed.stoch], -1)
        losses = self._head_losses(feat, batch, timed)
        losses["dyn"], losses["rep"], kl = kl_losses(
            observed.post, observed.prior, self.config.free_nats
        )
        return WorldOutput(embed, feat, observed, losses, self._metrics(losses, kl))

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss that `forward` returns."""
        config = self.config
        scales = {f"recon/{key}": config.recon_scale * x for key, x in self.recon_weights.items()}
        scales |= {"dyn": config.kl_scale * DYN_SCALE, "rep": config.kl_scale * REP_SCALE}
        return scales | {"reward": config.reward_scale, "cont": config.cont_scale}

    def _decoders(self) -> list[Decoder]:
        return [cast(Decoder, decoder) for decoder in self.decoders.values()]

    def _head_losses(self, feat: Tensor, batch: Batch, timed: Mapping[str, Tensor]) -> Losses:
        losses: Losses = {}
        for decoder in self._decoders():
            losses |= {f"recon/{key}": loss for key, loss in decoder.loss(feat, timed).items()}
        for key, flag in self.flags.items():  # nobody knows what a missing sensor would have said
            losses[f"recon/{key}"] = losses[f"recon/{key}"] * timed[flag].squeeze(-1)
        losses["reward"] = self.reward(feat).loss(batch.reward.transpose(0, 1))
        # The discount lives in the label, so that imagination multiplies by `cont` and nothing
        # else.
        label = (~batch.is_terminal.transpose(0, 1)).float() * self.config.discount
        losses["cont"] = self.cont(feat).loss(label)
        return losses

    def _metrics(self, losses: Losses, kl: Tensor) -> Metrics:
        means = {name: loss.detach().mean() for name, loss in losses.items()}
        recon = torch.stack([m for name, m in means.items() if name.startswith("recon/")]).sum()
        return {
            "world/recon_loss": recon,
            "world/kl_loss": kl.mean(),
            "world/dyn_loss": means["dyn"],
            "world/rep_loss": means["rep"],
            "world/reward_loss": means["reward"],
            "world/cont_loss": means["cont"],
        }


def sense_of(encoder: Encoder) -> Sense:
    """How fusion cuts what an encoder returns."""
    return Sense(encoder.tokens, encoder.out_dim // encoder.tokens)


def init(seed: int, name: str) -> torch.Generator:
    """Generator of the initial weights of one named part."""
    return torch.Generator().manual_seed(derive_seed(seed, f"init/{name}"))


def total_loss(losses: Losses, scales: Mapping[str, float]) -> Tensor:
    """() weighted sum of means; names of losses and weights must be the same.

    Raises:
        ValueError: If a loss has no weight or a weight no loss.
    """
    if losses.keys() != scales.keys():
        odd = sorted(losses.keys() ^ scales.keys())
        raise ValueError(f"losses and their weights differ in {odd}")
    return torch.stack([loss.mean() * scales[name] for name, loss in losses.items()]).sum()
