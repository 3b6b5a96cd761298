from jaxtricks import merging
from tests.case import Case

SPECS, MATCHING, MERGES = (
    f"tests/merging/test_{name}.py" for name in ("permutation", "matching", "pleas")
)

CASES = [
    Case(merging.activation_matching, kind="own", tests=MATCHING),
    Case(merging.apply_permutation, kind="own", tests=SPECS),
    Case(merging.convnet_permutation_spec, kind="own", tests=SPECS),
    Case(merging.fold_repair, kind="own", tests=MERGES),
    Case(merging.interpolation_barrier, kind="own", tests=MERGES),
    Case(merging.label_activations, kind="own", tests=SPECS),
    Case(merging.mlp_permutation_spec, kind="own", tests=SPECS),
    Case(merging.partial_matching, kind="own", tests=MERGES),
    Case(merging.permutation_spec, kind="own", tests=SPECS),
    Case(merging.permutation_spec_from_labels, kind="own", tests=SPECS),
    Case(merging.pleas, kind="own", tests=MERGES),
    Case(merging.repair, kind="own", tests=MERGES),
    Case(merging.resnet_permutation_spec, kind="own", tests=SPECS),
    Case(merging.singular_vector_alignment, kind="own", tests=MERGES),
    Case(merging.sinkhorn_matching, kind="own", tests=MATCHING),
    Case(merging.ste_matching, kind="own", tests=MATCHING),
    Case(merging.transformer_permutation_spec, kind="own", tests=SPECS),
    Case(merging.weight_matching, kind="own", tests=MATCHING),
]
