"""What FedAdagrad, FedAdam and FedYogi share: a step for each parameter, shorter where the edges' updates are large."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hub.aggregation.algorithm import Aggregate
from hub.aggregation.step import step
from shared.tensors import Array, Tensors


class Adaptive(Protocol):
    """The settings that the three have in common."""

    @property
    def server_lr(self) -> float:
        """Written eta in the paper."""
        ...

    @property
    def beta1(self) -> float:
        """How much of the momentum is kept."""
        ...

    @property
    def tau(self) -> float:
        """The degree of adaptivity: the smaller, the more."""
        ...


Spread = Callable[[Array, Array], None]
"""Changes v_{t-1}, the first, to v_t in place, given the square of m_t, which may be overwritten."""


def adapt(
    memory: Tensors, model: Tensors, aggregate: Aggregate, *, name: str, settings: Adaptive, spread: Spread
) -> tuple[Tensors, Tensors]:
    """Take the step of Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.

    m_t = beta1 m_{t-1} + (1 - beta1) Delta_t,  v_t as `spread` says,  w_{t+1} = w_t + server_lr m_t / (sqrt(v_t) + tau)

    with m_{-1} = 0 and v_{-1} = tau^2, and without Adam's correction for them. (They write Delta_t for m_t too. Here,
    Delta_t is the edges' mean difference weighted by examples, as in their experiments.) Without momentum, m_t is
    Delta_t and is not remembered.
    """
    lr, beta1, tau = settings.server_lr, settings.beta1, settings.tau

    def equation(delta: Array, v: Array, m: Array | None = None) -> Array:
        if m is None:
            m = delta
        else:
            m *= beta1
            m += (1 - beta1) * delta
        room = m * m
        spread(v, room)
        np.sqrt(v, out=room)
        room += tau
        np.divide(m, room, out=room)
        room *= lr
        return room

    keeps = {f"{name} v": tau**2} | ({f"{name} m": 0.0} if beta1 else {})
    return step(memory, model, aggregate, equation=equation, keeps=keeps)
