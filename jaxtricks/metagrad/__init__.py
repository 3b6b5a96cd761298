"""Meta-gradients: training itself as a function to differentiate.

`scan(step, init, xs) -> (carry, ys)` is `lax.scan` with a backward pass that replays
the training instead of storing it; everything after that is `jax.grad`, in example
weights, schedules, initial parameters or whatever the steps read.
"""

from ._camel import camel_adapt, camel_head
from ._datarater import (
    DataRater,
    DataRaterState,
    datarater,
    datarater_weights,
    topk_batch_filter,
    topk_keep_probability,
)
from ._evolution import Pes, PesState, es, pes
from ._finite_difference import finite_difference
from ._hypergradient import hypergradient, multi_step
from ._implicit import implicit
from ._in_context import caml_sequence, gpicl_loss, gpicl_tasks, simplex_etf
from ._iteration_count import iteration_count
from ._learned_optimizer import (
    LearnedOptimizerState,
    init_learned_optimizer,
    learned_optimizer,
    scale_by_mup,
)
from ._magic import Influence, linear_datamodeling_score, magic
from ._maml import inner_adapt, maml
from ._mgd import key_points, mgd, relax_counts
from ._mixed import mixed
from ._optimal_transport import (
    SinkhornPotentials,
    dual_potential,
    meta_ot,
    sinkhorn_dual,
    sinkhorn_potentials,
)
from ._plan import Plan, plan
from ._replay import Replay, replay
from ._scan import scan
from ._self_tuning import (
    BestResponse,
    Stn,
    StnState,
    best_response_linear,
    perturb_hyper,
    perturbation_entropy,
    stn,
)
from ._sensitivity import input_derivative_sensitivity
from ._shift import importance_weighted_value, shift_shapley
from ._siren import init_siren, siren
from ._smoothness import metasmoothness
from ._storm import Storm, StormRescaler, StormState, preserve_sum, storm, storm_weights
from ._storm_features import StormMemory, storm_features, storm_memory
from ._tasks import TaskLandscape, interpolate_tasks, task_landscape
from ._trilateral import class_predictions, fused_distillation, trilateral_geometry
from ._truncated import truncated
from ._trust import Check, check
from ._unroll import unroll
from ._velo import VeloState, init_velo, velo

__all__ = [
    "BestResponse",
    "Check",
    "DataRater",
    "DataRaterState",
    "Influence",
    "LearnedOptimizerState",
    "Pes",
    "PesState",
    "Plan",
    "Replay",
    "SinkhornPotentials",
    "Stn",
    "StnState",
    "Storm",
    "StormMemory",
    "StormRescaler",
    "StormState",
    "TaskLandscape",
    "VeloState",
    "best_response_linear",
    "camel_adapt",
    "camel_head",
    "caml_sequence",
    "check",
    "class_predictions",
    "datarater",
    "datarater_weights",
    "dual_potential",
    "es",
    "finite_difference",
    "fused_distillation",
    "gpicl_loss",
    "gpicl_tasks",
    "hypergradient",
    "implicit",
    "importance_weighted_value",
    "init_learned_optimizer",
    "init_siren",
    "init_velo",
    "inner_adapt",
    "input_derivative_sensitivity",
    "interpolate_tasks",
    "iteration_count",
    "key_points",
    "learned_optimizer",
    "linear_datamodeling_score",
    "magic",
    "maml",
    "meta_ot",
    "metasmoothness",
    "mgd",
    "mixed",
    "multi_step",
    "perturb_hyper",
    "perturbation_entropy",
    "pes",
    "plan",
    "preserve_sum",
    "relax_counts",
    "replay",
    "scale_by_mup",
    "scan",
    "shift_shapley",
    "simplex_etf",
    "sinkhorn_dual",
    "sinkhorn_potentials",
    "siren",
    "stn",
    "storm",
    "storm_features",
    "storm_memory",
    "storm_weights",
    "task_landscape",
    "topk_batch_filter",
    "topk_keep_probability",
    "trilateral_geometry",
    "truncated",
    "unroll",
    "velo",
]
