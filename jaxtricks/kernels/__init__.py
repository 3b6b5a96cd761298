"""Fused operations: the plain formula's signature, without the memory of its parts.

`token_statistics` reduces a vocabulary's logits to a few numbers a token, and the
`linear_*` functions are formulas on those: they take what the head would multiply and
never hold more than a stated workspace of logits. `softmax` and the norms go over a
long last axis as few times as can be; the attentions hold a block of scores. All at any
order of differentiation and on any mesh.
"""

from ._extended import ext_add, ext_exp
from ._gated_linear_unit import simple_glu
from ._hedgehog import attention_transfer_loss, hedgehog_feature_map
from ._hybrid_attention import (
    HybridAttentionState,
    hybrid_window_linear_attention,
    hybrid_window_linear_attention_step,
)
from ._linear_attention import (
    LinearAttentionState,
    lightning_decay,
    lightning_linear_attention,
    lightning_linear_attention_step,
    lrpe,
)
from ._linear_cross_entropy import linear_cross_entropy
from ._linear_kl import linear_kl
from ._linear_logprob import LogProb, linear_logprob
from ._long_short_attention import attention_logit_max, long_short_attention
from ._norms import (
    add_crms_norm,
    add_layer_norm,
    add_rms_norm,
    crms_norm,
    layer_norm,
    rms_norm,
)
from ._softmax import log_softmax, logsumexp, softmax
from ._statistics import TokenStatistics, token_statistics
from ._supported import supported
from ._value_and_grad import LossAndGrads, linear_cross_entropy_value_and_grad

__all__ = [
    "HybridAttentionState",
    "LinearAttentionState",
    "LogProb",
    "LossAndGrads",
    "TokenStatistics",
    "add_crms_norm",
    "add_layer_norm",
    "add_rms_norm",
    "attention_logit_max",
    "attention_transfer_loss",
    "crms_norm",
    "ext_add",
    "ext_exp",
    "hedgehog_feature_map",
    "hybrid_window_linear_attention",
    "hybrid_window_linear_attention_step",
    "layer_norm",
    "lightning_decay",
    "lightning_linear_attention",
    "lightning_linear_attention_step",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "linear_kl",
    "linear_logprob",
    "log_softmax",
    "logsumexp",
    "long_short_attention",
    "lrpe",
    "rms_norm",
    "simple_glu",
    "softmax",
    "supported",
    "token_statistics",
]
