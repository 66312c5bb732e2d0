"""SEMA's representation descriptor: a linear auto-encoder and the z-score of its errors.

For a feature m the error is r = (1 / D) sum_j (m_hat_j - m_j)^2 with m_hat the reconstruction, and
z = (r - mu) / sigma; the score of a window is its mean z.

Reference: Wang et al., "Self-Expansion of Pre-trained Models with Mixture of Adapters for Continual
Learning" (SEMA), CVPR 2025, arXiv:2403.18886.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, RunError, check_positive
from cl_adapters.schedule import cosine
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.calibration import mean_threshold

__all__ = ["DescriptorZScore"]


class DescriptorZScore(Detector):
    """Fires where the auto-encoder of the reference reconstructs a window worse than usual.

    Args:
        num_features: D.
        false_alarm: Share of known windows that fire, for `threshold="auto"`.
        seed: Seed of the initial weights, of the order of samples and of the hold-out.
        dim: Width of the code; None takes a sixth of D (the authors: 128 of 768).
        epochs: Passes over the reference; epoch e uses view e modulo V.
        lr: Learning rate of SGD (momentum 0.9), cosine to 0 from epoch to epoch.
        weight_decay: Of SGD.
        batch_size: Samples in a step.
        buffer: Errors that mu and sigma are taken from, the last ones of the training, where a
            fixed threshold is used.
        signed: Score z; False scores |z|, as the authors do, whose mean is 0.8 on known data.
        threshold: A number above 0, or `auto`: then mu and sigma are those of errors on samples
            that did not train, and the threshold for a window of n samples comes from them
            (`cl_adapters.shift.calibration`).
        folds: For `auto`, the samples are dealt into so many parts; the errors of each come from an
            auto-encoder that was trained on the others. At min_shift 2.
        standardize: Subtract the reference's mean and divide by one number, its spread, first: the
            training then converges whatever the scale of the features (the authors do not).
        min_shift: With `auto`, the smallest threshold, at least 0: a shift that is certain but
            smaller than this many standard deviations does not count.

    Raises:
        InputError: If an option is out of its range.
    """

    min_samples: ClassVar[int] = 10

    def __init__(  # noqa: PLR0913 - each is an option of the method
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        dim: int | None = None,
        epochs: int = 20,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        batch_size: int = 32,
        buffer: int = 500,
        signed: bool = True,
        threshold: float | Literal["auto"] = "auto",
        folds: int = 5,
        standardize: bool = True,
        min_shift: float = 0.0,
    ) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        self.dim = max(1, num_features // 6) if dim is None else dim
        for name, value in (("dim", self.dim), ("epochs", epochs), ("batch_size", batch_size)):
            check_positive(name, value)
        if threshold != "auto" and threshold <= 0:
            raise InputError(f"`threshold` must be 'auto' or above 0, got {threshold}")
        if folds < 2:
            raise InputError(f"`folds` must be at least 2, got {folds}")
        if not min_shift >= 0:
            raise InputError(f"`min_shift` must be at least 0, got {min_shift}")
        self.epochs, self.lr, self.weight_decay = epochs, lr, weight_decay
        self.batch_size, self.buffer, self.signed = batch_size, buffer, signed
        self.threshold, self.folds, self.min_shift = threshold, folds, min_shift
        self.encoder_weight = nn.Parameter(torch.zeros(self.dim, num_features))
        self.encoder_bias = nn.Parameter(torch.zeros(self.dim))
        self.decoder_weight = nn.Parameter(torch.zeros(num_features, self.dim))
        self.decoder_bias = nn.Parameter(torch.zeros(num_features))
        self.standardize = standardize
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("spread", torch.ones(()))
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("records", torch.zeros(buffer))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.records: Tensor
        self.count: Tensor
        self.requires_grad_(requires_grad=False)

    def reset(self) -> None:
        """Forgets the reference."""
        self.count.zero_()
        self.records.zero_()
        self._thresholds = {}

    def fit(self, features: Tensor) -> None:
        """Trains the auto-encoder and takes the statistics of its errors."""
        features = self.checked(features, self.min_samples)
        views = features if features.ndim == 3 else features[None]
        generator = torch.Generator().manual_seed(self.seed)
        self.reset()
        if self.standardize:
            self.centre.copy_(views.mean(dim=(0, 1)))
            spread = (views - self.centre).square().mean().sqrt()
            self.spread.copy_(spread if spread > 0 else torch.ones(()))
        unseen: list[Tensor] = []
        if self.threshold == "auto":
            order = torch.randperm(views.shape[1], generator=generator)
            for part in torch.tensor_split(order, self.folds):
                others = order[~torch.isin(order, part)]
                self._train_on(views[:, others])
                # One view: the errors of several views of an image are not independent.
                unseen.append(self.errors(views[0, part]))
        seen = self._train_on(views)
        errors = torch.cat(unseen) if unseen else seen
        chosen = torch.randperm(len(errors), generator=generator) if unseen else None
        if not bool(torch.isfinite(errors).all()):
            raise RunError(
                f"a descriptor's errors must stay finite, but its training diverged at "
                f"lr={self.lr}; standardize the features or lower the rate"
            )
        self._remember(errors if chosen is None else errors[chosen])

    @torch.no_grad()
    def _train_on(self, views: Tensor) -> Tensor:
        """Returns the errors that the training steps saw, in their order.

        SGD with momentum 0.9. Gradients are written out: at this size most of a step would else be
        spent on keeping books.
        """
        # Always from the same weights: else the folds' errors would not be those of one network.
        generator = torch.Generator().manual_seed(self.seed)
        for weight in (self.encoder_weight, self.decoder_weight):
            drawn = torch.empty(weight.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            weight.copy_(drawn)
        self.encoder_bias.zero_()
        self.decoder_bias.zero_()
        weights: list[Tensor] = list(self.parameters())
        velocity = [torch.zeros_like(weight) for weight in weights]
        standard = (views - self.centre) / self.spread
        seen = []
        for epoch in range(self.epochs):
            rate = self.lr * cosine(epoch, self.epochs)
            samples = standard[epoch % len(standard)]
            order = torch.randperm(len(samples), generator=generator).to(samples.device)
            for part in torch.split(order, self.batch_size):
                errors, gradients = self._step(samples[part])
                torch._foreach_add_(gradients, weights, alpha=self.weight_decay)
                torch._foreach_mul_(velocity, 0.9)
                torch._foreach_add_(velocity, gradients)
                torch._foreach_add_(weights, velocity, alpha=-rate)
                seen.append(errors)
        return torch.cat(seen)

    def _step(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the errors of a batch and the gradients of their mean, in the weights' order.

        Shape:
            features: (B, D), standardised.
        """
        code = functional.linear(features, self.encoder_weight, self.encoder_bias)
        residual = functional.linear(code, self.decoder_weight, self.decoder_bias) - features
        to_restored = residual * (2 / residual.numel())
        to_code = to_restored @ self.decoder_weight
        gradients = [
            to_code.T @ features,
            to_code.sum(dim=0),
            to_restored.T @ code,
            to_restored.sum(dim=0),
        ]
        return residual.square().mean(dim=1), gradients

    def _remember(self, errors: Tensor) -> None:
        last = errors[-self.buffer :]
        self.records[: len(last)] = last
        self.count.fill_(len(last))

    def _errors(self, features: Tensor) -> Tensor:
        features = (features - self.centre) / self.spread
        code = functional.linear(features, self.encoder_weight, self.encoder_bias)
        restored = functional.linear(code, self.decoder_weight, self.decoder_bias)
        return (restored - features).square().mean(dim=1)

    @torch.no_grad()
    def errors(self, features: Tensor) -> Tensor:
        """Returns the reconstruction error of each sample.

        Shape:
            features: (n, D). Output: (n,).
        """
        return self._errors(self.checked(features))

    def z_scores(self, features: Tensor) -> Tensor:
        """Returns how many standard deviations each error lies above the usual one.

        With no more than two records every z is 0.

        Shape:
            features: (n, D). Output: (n,).
        """
        return self._z(self.errors(features))

    def sample_scores(self, features: Tensor) -> Tensor:
        """Returns the z-scores, whose mean is the score of a window."""
        return self.z_scores(features)

    def _z(self, errors: Tensor) -> Tensor:
        records = self.records[: int(self.count)]
        if len(records) <= 2:
            return torch.zeros_like(errors)
        # A reference without any spread must not turn rounding errors into infinite scores.
        spread = records.std().clamp_min(torch.finfo(records.dtype).tiny)
        z = (errors - records.mean()) / spread
        return z if self.signed else z.abs()

    def check(self, features: Tensor) -> Verdict:
        """Compares the mean z of a window with the threshold."""
        if not int(self.count):
            raise InputError("a detector must be fitted before it is asked")
        scores = self.z_scores(features)
        return Verdict(scores.mean().item(), self._threshold_for(len(scores)))

    def _threshold_for(self, size: int) -> float:
        if self.threshold != "auto":
            return self.threshold
        if size not in self._thresholds:
            held_out = self._z(self.records[: int(self.count)])
            calibrated = mean_threshold(held_out, size, self.false_alarm, self.seed)
            self._thresholds[size] = max(calibrated, self.min_shift)
        return self._thresholds[size]
