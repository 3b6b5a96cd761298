"""Merging: one model out of several of the same shape, without training.

A merge is `name(base?, trees, *, ..., where=None)` on pytrees of parameters, and
`name_leaf(stack, ...)` on one parameter of all models, stacked along axis 0. Both jit,
vmap over coefficients, differentiate in weights, and leave shardings alone. Names load
when first used, so that tools that merge files need not start jax.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = [
    "AverageState",
    "Averaging",
    "Barrier",
    "Blocks",
    "Correction",
    "FalseFalseTrue",
    "Lora",
    "Matching",
    "Soup",
    "activation_matching",
    "adamerging",
    "add_task_vectors",
    "apply_permutation",
    "arcee_fusion",
    "arcee_fusion_leaf",
    "assemble_modules",
    "breadcrumbs",
    "breadcrumbs_leaf",
    "calibrated_ensemble",
    "confidence_temperature",
    "convnet_permutation_spec",
    "dare",
    "dare_leaf",
    "darex_q",
    "darex_rescale",
    "della",
    "della_leaf",
    "ema",
    "extract_lora",
    "false_false_true",
    "fisher",
    "fisher_diagonal",
    "fisher_leaf",
    "fit_coefficients",
    "fold_lora",
    "fold_repair",
    "gram",
    "greedy_soup",
    "interpolation_barrier",
    "iso",
    "iso_leaf",
    "karcher",
    "karcher_leaf",
    "knots",
    "label_activations",
    "lawa",
    "linear",
    "linear_leaf",
    "metric_weights",
    "metrics_weighted",
    "mlp_permutation_spec",
    "model_stock",
    "model_stock_leaf",
    "multislerp",
    "multislerp_leaf",
    "nearswap",
    "nearswap_leaf",
    "neon",
    "neon_alignment",
    "nuslerp",
    "nuslerp_leaf",
    "overconfidence",
    "partial_matching",
    "patch_weights",
    "permutation_spec",
    "permutation_spec_from_labels",
    "pleas",
    "ram",
    "ram_leaf",
    "regmean",
    "regmean_leaf",
    "repair",
    "resnet_permutation_spec",
    "robust_weight_signature",
    "sce",
    "sce_leaf",
    "self_position",
    "singular_vector_alignment",
    "sinkhorn_matching",
    "slerp",
    "slerp_leaf",
    "ste_matching",
    "swa",
    "task_arithmetic",
    "task_arithmetic_leaf",
    "task_vector",
    "ties",
    "ties_leaf",
    "transformer_permutation_spec",
    "tsv",
    "tsv_leaf",
    "weight_matching",
    "wise_ft",
]

if TYPE_CHECKING:
    from ._adamerging import adamerging, fit_coefficients
    from ._assemble import assemble_modules
    from ._averages import AverageState, Averaging, ema, lawa, swa
    from ._breadcrumbs import breadcrumbs, breadcrumbs_leaf
    from ._dare import dare, dare_leaf, della, della_leaf
    from ._darex import darex_q, darex_rescale
    from ._fisher import fisher, fisher_diagonal, fisher_leaf
    from ._greedy import Soup, greedy_soup
    from ._interpolation import (
        Barrier,
        interpolation_barrier,
        singular_vector_alignment,
    )
    from ._iso import iso, iso_leaf
    from ._knots import knots
    from ._layer_inputs import label_activations
    from ._linear import linear, linear_leaf
    from ._lora import Lora, extract_lora, fold_lora
    from ._matching import Matching, activation_matching
    from ._metrics_weighted import metric_weights, metrics_weighted
    from ._model_stock import model_stock, model_stock_leaf
    from ._neon import neon, neon_alignment
    from ._permutation import apply_permutation, permutation_spec_from_labels
    from ._permutation_models import (
        convnet_permutation_spec,
        mlp_permutation_spec,
        transformer_permutation_spec,
    )
    from ._permutation_resnet import resnet_permutation_spec
    from ._permutation_trace import permutation_spec
    from ._pleas import Blocks, partial_matching, pleas
    from ._ram import ram, ram_leaf
    from ._regmean import gram, regmean, regmean_leaf
    from ._repair import Correction, fold_repair, repair
    from ._sce import sce, sce_leaf
    from ._self_position import self_position
    from ._signature import patch_weights, robust_weight_signature
    from ._slerp import nuslerp, nuslerp_leaf, slerp, slerp_leaf
    from ._sphere import karcher, karcher_leaf, multislerp, multislerp_leaf
    from ._ste_matching import sinkhorn_matching, ste_matching
    from ._swap import arcee_fusion, arcee_fusion_leaf, nearswap, nearswap_leaf
    from ._task_vector import (
        add_task_vectors,
        task_arithmetic,
        task_arithmetic_leaf,
        task_vector,
    )
    from ._ties import ties, ties_leaf
    from ._tsv import tsv, tsv_leaf
    from ._weight_matching import weight_matching
    from ._wise_ft import (
        FalseFalseTrue,
        calibrated_ensemble,
        confidence_temperature,
        false_false_true,
        overconfidence,
        wise_ft,
    )
else:
    _MODULE = {
        "AverageState": "_averages",
        "Averaging": "_averages",
        "Barrier": "_interpolation",
        "Blocks": "_pleas",
        "Correction": "_repair",
        "FalseFalseTrue": "_wise_ft",
        "Lora": "_lora",
        "Matching": "_matching",
        "Soup": "_greedy",
        "activation_matching": "_matching",
        "adamerging": "_adamerging",
        "add_task_vectors": "_task_vector",
        "apply_permutation": "_permutation",
        "arcee_fusion": "_swap",
        "arcee_fusion_leaf": "_swap",
        "assemble_modules": "_assemble",
        "breadcrumbs": "_breadcrumbs",
        "breadcrumbs_leaf": "_breadcrumbs",
        "calibrated_ensemble": "_wise_ft",
        "confidence_temperature": "_wise_ft",
        "convnet_permutation_spec": "_permutation_models",
        "dare": "_dare",
        "dare_leaf": "_dare",
        "darex_q": "_darex",
        "darex_rescale": "_darex",
        "della": "_dare",
        "della_leaf": "_dare",
        "ema": "_averages",
        "extract_lora": "_lora",
        "false_false_true": "_wise_ft",
        "fisher": "_fisher",
        "fisher_diagonal": "_fisher",
        "fisher_leaf": "_fisher",
        "fit_coefficients": "_adamerging",
        "fold_lora": "_lora",
        "fold_repair": "_repair",
        "gram": "_regmean",
        "greedy_soup": "_greedy",
        "interpolation_barrier": "_interpolation",
        "iso": "_iso",
        "iso_leaf": "_iso",
        "karcher": "_sphere",
        "karcher_leaf": "_sphere",
        "knots": "_knots",
        "label_activations": "_layer_inputs",
        "lawa": "_averages",
        "linear": "_linear",
        "linear_leaf": "_linear",
        "metric_weights": "_metrics_weighted",
        "metrics_weighted": "_metrics_weighted",
        "mlp_permutation_spec": "_permutation_models",
        "model_stock": "_model_stock",
        "model_stock_leaf": "_model_stock",
        "multislerp": "_sphere",
        "multislerp_leaf": "_sphere",
        "nearswap": "_swap",
        "nearswap_leaf": "_swap",
        "neon": "_neon",
        "neon_alignment": "_neon",
        "nuslerp": "_slerp",
        "nuslerp_leaf": "_slerp",
        "overconfidence": "_wise_ft",
        "partial_matching": "_pleas",
        "patch_weights": "_signature",
        "permutation_spec": "_permutation_trace",
        "permutation_spec_from_labels": "_permutation",
        "pleas": "_pleas",
        "ram": "_ram",
        "ram_leaf": "_ram",
        "regmean": "_regmean",
        "regmean_leaf": "_regmean",
        "repair": "_repair",
        "resnet_permutation_spec": "_permutation_resnet",
        "robust_weight_signature": "_signature",
        "sce": "_sce",
        "sce_leaf": "_sce",
        "self_position": "_self_position",
        "singular_vector_alignment": "_interpolation",
        "sinkhorn_matching": "_ste_matching",
        "slerp": "_slerp",
        "slerp_leaf": "_slerp",
        "ste_matching": "_ste_matching",
        "swa": "_averages",
        "task_arithmetic": "_task_vector",
        "task_arithmetic_leaf": "_task_vector",
        "task_vector": "_task_vector",
        "ties": "_ties",
        "ties_leaf": "_ties",
        "transformer_permutation_spec": "_permutation_models",
        "tsv": "_tsv",
        "tsv_leaf": "_tsv",
        "weight_matching": "_weight_matching",
        "wise_ft": "_wise_ft",
    }

    def __getattr__(name):
        if name == "files":
            return importlib.import_module(f"{__name__}.files")
        if name in _MODULE:
            return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
