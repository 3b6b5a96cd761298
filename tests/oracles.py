"""Oracles in numpy float64, from the papers' formulas: nothing here calls jaxtricks."""

import numpy as np


def numbers(text: str) -> list[float]:
    """The numbers that somebody else's program printed."""
    return [float(x) for x in text.split()]


def log_softmax(logits):
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


def one_hot(labels, classes: int):
    return np.eye(classes)[labels]


def scans(jaxpr):
    """(length, unroll) of every scan of a program, outer before inner."""
    found = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "scan":
            found.append([equation.params["length"], equation.params["unroll"]])
        for inner in equation.params.values():
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                found += scans(inner)
    return found


# Softmax regression, the small problem that the sharpness and meta-gradient rows train.

_rng = np.random.default_rng(2024)
X = _rng.normal(size=(5, 3)).astype(np.float32)
Y = np.array([0, 2, 1, 2, 0], np.int32)
W = (0.7 * _rng.normal(size=(3, 3))).astype(np.float32)
B = (0.4 * _rng.normal(size=3)).astype(np.float32)


def _f64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def softmax(z):
    return np.exp(log_softmax(z))


def regression_gradient(params, weights=None):
    """The gradient of mean_i weights_i CE(X_i w + b, Y_i) as {"w", "b"}."""
    (x,) = _f64(X)
    weights = np.ones(len(x)) if weights is None else weights
    g = (softmax(x @ params["w"] + params["b"]) - one_hot(Y, 3)) * weights[:, None]
    return {"w": x.T @ g / len(x), "b": g.sum(0) / len(x)}


def linear_cross_entropy(
    hidden, weight, labels, bias=None, softcap=None, label_smoothing=0.0, z_loss=0.0
):
    """Per-token loss, and its gradient in the logits before bias and cap, by hand."""
    hidden, weight = _f64(hidden, weight)
    z = hidden @ weight + (0 if bias is None else np.asarray(bias, np.float64))
    live = np.isfinite(z)
    slope = np.ones_like(z)
    if softcap is not None:
        slope = np.where(live, 1 - np.tanh(z / softcap) ** 2, 0)
        z = np.where(live, softcap * np.tanh(z / softcap), -np.inf)
    peak = z.max(-1, keepdims=True)
    lse = peak + np.log(np.exp(z - peak).sum(-1, keepdims=True))
    p = np.exp(z - lse)
    q = (1 - label_smoothing) * one_hot(labels, z.shape[-1])
    q = q + label_smoothing * live / live.sum(-1, keepdims=True)
    loss = -(q * np.where(live, z - lse, 0)).sum(-1) + z_loss * lse[..., 0] ** 2
    return loss, ((1 + 2 * z_loss * lse) * p - q) * slope


def sam_train(steps=3, rate=0.5, momentum=0.9, **hyper):
    """Parameters (b, w flat) after steps of SGD with momentum on `sam_gradient`."""
    params = {"w": W.astype(np.float64), "b": B.astype(np.float64)}
    trace = {k: np.zeros_like(v) for k, v in params.items()}
    for _ in range(steps):
        grads = sam_gradient(params, **hyper)
        trace = {k: momentum * trace[k] + grads[k] for k in params}
        params = {k: params[k] - rate * trace[k] for k in params}
    return np.concatenate([params["b"], params["w"].ravel()])


def sam_gradient(params, rho=0.05, p=2.0, adaptive=False, eta=0.01):
    """SAM eq. 2 for any p; with T = |w| + eta where `adaptive`, ASAM eq. 8."""
    if not isinstance(adaptive, dict):
        adaptive = dict.fromkeys(params, adaptive)
    grads = regression_gradient(params)
    scale = {
        k: np.abs(v) + eta if adaptive[k] else np.ones_like(v)
        for k, v in params.items()
    }
    scaled = {k: scale[k] * g for k, g in grads.items()}
    q = 1.0 if np.isinf(p) else p / (p - 1)
    size = sum((np.abs(g) ** q).sum() for g in scaled.values()) ** (1 / p)
    step = {
        k: scale[k] * np.sign(g) * np.abs(g) ** (q - 1) / size
        for k, g in scaled.items()
    }
    return regression_gradient({k: params[k] + rho * step[k] for k in params})


# Schedules: value(t) for one step at a time, with Python's float64.

SHAPES = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + np.cos(np.pi * x)),
    "mirror_cosine": lambda x: 2 * (1 - x) - 0.5 * (1 + np.cos(np.pi * x)),
    "square": lambda x: 1 - x**2,
    "sqrt": lambda x: 1 - np.sqrt(x),
    "lowered_linear": lambda x: 0.7 * (1 - x),
    "inverse_sqrt": lambda x: 1 - (1 / np.sqrt(1 + 10 * x) - 1) / (1 / np.sqrt(11) - 1),
}


def _decay(shape, x, peak, end):
    if shape == "inverse":
        return 1 / ((1 - x) / peak + x / end)
    if shape == "exponential":
        return peak * (end / peak) ** x
    return end + (peak - end) * SHAPES[shape](x)


def wsd_s(steps, peak, budgets, warmup, decays, shape="inverse", start=0.0, end=None):
    """arXiv:2410.05192: warmup, then before each budget a decay, after it the peak."""
    end = peak / 10 if end is None else end
    values = []
    for t in steps:
        if t < warmup:
            values.append(start + (peak - start) * t / warmup)
        elif t >= budgets[-1]:
            values.append(end)
        else:
            k = next(k for k, budget in enumerate(budgets) if t < budget)
            x = (t - (budgets[k] - decays[k])) / max(decays[k], 1)
            values.append(peak if x < 0 else _decay(shape, x, peak, end))
    return values


def infinite(
    steps,
    peak,
    warmup,
    cooldown,
    total=None,
    anneal=0,
    shape="cosine",
    start=0.0,
    constant=None,
    end=None,
):
    """arXiv:2403.08763: linear warmup, cooldown, constant, exponential annealing."""
    end = peak / 10 if end is None else end
    constant = (peak + end) / 2 if constant is None else constant
    values = []
    for t in steps:
        if t < warmup:
            values.append(start + (peak - start) * t / warmup)
        elif t < warmup + cooldown:
            values.append(_decay(shape, (t - warmup) / cooldown, peak, constant))
        elif total is None or t <= total - anneal:
            values.append(constant)
        else:
            x = min(1, (t - (total - anneal)) / anneal)
            values.append(constant * (end / constant) ** x)
    return values


def rewarm(steps, peak, budgets, warmups, start=0.0, end=None):
    """arXiv:2308.04014: for each data set linear re-warming, then cosine re-decay."""
    end = peak / 10 if end is None else end
    values = []
    for t in steps:
        if t >= budgets[-1]:
            values.append(end)
            continue
        k = next(k for k, budget in enumerate(budgets) if t < budget)
        begin, low = (budgets[k - 1], end) if k else (0, start)
        done, warmup = t - begin, warmups[k]
        if done < warmup:
            values.append(low + (peak - low) * done / warmup)
        else:
            x = (done - warmup) / (budgets[k] - begin - warmup)
            values.append(_decay("cosine", x, peak, end))
    return values


def uba(steps, peaks, budgets, phi=1.0, warmup=0, start=0.0, end=0.0):
    """arXiv:2505.24452: the UBA schedule, segment by segment."""
    values = []
    for t in steps:
        if t < warmup:
            values.append(start + (peaks[0] - start) * t / warmup)
        elif t >= budgets[-1]:
            values.append(end)
        else:
            k = next(k for k, budget in enumerate(budgets) if t < budget)
            begin = budgets[k - 1] if k else warmup
            wave = 1 + np.cos(np.pi * (t - begin) / (budgets[k] - begin))
            share = 2 * wave / (2 * phi + (2 - phi) * wave)
            values.append(end + (peaks[k] - end) * share)
    return values


def ties(changes, weights, density, sign="total", normalize=True):
    """arXiv:2306.01708 alg. 1 on one flat vector of each model: trim, elect, merge."""
    (changes,) = _f64(changes)
    n, size = changes.shape
    trimmed = np.zeros_like(changes)
    for i, share in enumerate(np.broadcast_to(density, n)):
        count = max(int(share > 0), int(share * size))
        largest = np.argsort(-np.abs(changes[i]), kind="stable")[:count]
        trimmed[i, largest] = weights[i] * changes[i, largest]
    merged = np.zeros(size)
    for j in range(size):
        column = trimmed[:, j]
        vote = column.sum() if sign == "total" else np.sign(column).sum()
        agree = column > 0 if vote >= 0 else column < 0
        share = np.asarray(weights, np.float64)[agree].sum() if normalize else 1.0
        merged[j] = column[agree].sum() / (share or 1.0)
    return merged


def unrolled(weights, rate, momentum, aim, readout):
    """Training unrolled and differentiated by hand: arXiv:2503.13751's recursion.

    Step t of SGD with momentum trains softmax regression with example weights
    weights[t] and emits o_t = sum of the new parameters. The objective is
    sum (params_T - aim)^2 / 2 + readout sum_t (t + 1) o_t. Returns it and its gradients
    in weights, (rate, momentum) and the first parameters (b, then w).
    """
    (x, weights) = _f64(X, weights)
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)  # b is the first row
    theta = np.concatenate([B[None], W]).astype(np.float64).ravel()
    speed, tape, objective = np.zeros_like(theta), [], 0.0
    for t, w in enumerate(weights):
        p = softmax(design @ theta.reshape(4, 3))
        each = design[:, :, None] * (p - one_hot(Y, 3))[:, None, :] / len(x)
        each = each.reshape(len(x), -1)  # the gradient of each example
        curve = np.einsum("ni,ncd,nj->icjd", design, _softmax_curve(p, w), design)
        new_speed = momentum * speed + w @ each
        tape.append((speed, new_speed, each, curve.reshape(12, 12) / len(x)))
        theta, speed = theta - rate * new_speed, new_speed
        objective += readout * (t + 1) * theta.sum()
    objective += ((theta - aim) ** 2).sum() / 2

    by_theta, by_speed = theta - aim, np.zeros_like(theta)
    by_weights, by_rate, by_momentum = np.zeros_like(weights), 0.0, 0.0
    for t, (speed, new_speed, each, hessian) in reversed(list(enumerate(tape))):
        by_theta = by_theta + readout * (t + 1)
        by_rate -= new_speed @ by_theta
        by_speed = by_speed - rate * by_theta
        by_momentum += speed @ by_speed
        by_weights[t] = each @ by_speed
        by_theta, by_speed = by_theta + hessian @ by_speed, momentum * by_speed
    return objective, by_weights, np.array([by_rate, by_momentum]), by_theta


def _softmax_curve(p, weights):
    """weights_n (diag(p_n) - p_n p_n'), the Hessian of each example in its logits."""
    curve = p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]
    return weights[:, None, None] * curve


# A head's logits z, those of a second head t, and what is told of a token from them.


def head(hidden, weight, bias=None, softcap=None, scale=1.0, layout="dv"):
    """scale cap(hidden weight + bias), and its slope in hidden weight; 0 at -inf."""
    hidden, weight = _f64(hidden, weight)
    z = hidden @ (weight if layout == "dv" else weight.T)
    z = z + (0 if bias is None else np.asarray(bias, np.float64))
    slope = np.ones_like(z)
    if softcap is not None:
        slope = 1 - np.tanh(z / softcap) ** 2
        z = np.where(np.isfinite(z), softcap * np.tanh(z / softcap), -np.inf)
    return scale * z, np.where(np.isfinite(z), scale * slope, 0)


def _products(p, x):
    """p x, 0 where p is 0."""
    return np.where(p > 0, p * np.where(p > 0, x, 0), 0)


def _log_sum(z):
    peak = z.max(-1)
    return peak + np.log(np.exp(z - peak[..., None]).sum(-1))


def statistics(z, labels, t=None):
    """Each statistic of tokens from their definitions."""
    shape, z = z.shape[:-1], z.reshape(-1, z.shape[-1])
    p, labels = softmax(z), np.ravel(labels)
    found = {
        "lse": _log_sum(z),
        "target": z[np.arange(len(z)), labels],
        "total": np.where(np.isfinite(z), z, 0).sum(-1),
        "mean": _products(p, z).sum(-1),
        "argmax": z.argmax(-1),
    }
    found["square"] = np.log((p**2).sum(-1)) + 2 * found["lse"]
    if t is not None:
        t = t.reshape(z.shape)
        q = softmax(t)
        found["teacher_lse"] = _log_sum(t)
        found["teacher_gap"] = (_products(q, z) - _products(q, t)).sum(-1)
        found["student_gap"] = (_products(p, z) - _products(p, t)).sum(-1)
    return {name: x.reshape(shape) for name, x in found.items()}


def divergence(z, t, direction="forward", beta=0.5):
    """arXiv:2306.13649 sec. 2: KL(q, p), KL(p, q) or the generalized JSD of both."""

    def kl(a, b):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(a > 0, a * np.log(a / b), 0).sum(-1)

    p, q = softmax(z), softmax(t)
    if direction == "jsd":
        m = beta * q + (1 - beta) * p
        return beta * kl(q, m) + (1 - beta) * kl(p, m)
    return kl(q, p) if direction == "forward" else kl(p, q)


def token_cross_entropy(z, labels, class_weights=None, label_smoothing=0.0, z_loss=0.0):
    """Per-token loss and its gradient in the logits, by hand."""
    live = np.isfinite(z)
    count = live.sum(-1, keepdims=True)
    c = np.ones(z.shape[-1]) if class_weights is None else _f64(class_weights)[0]
    target = (1 - label_smoothing) * one_hot(labels, z.shape[-1]) * c
    target = target + label_smoothing * np.where(live, c, 0) / count
    log_p, lse = log_softmax(z), _log_sum(z)
    loss = -(target * np.where(live, log_p, 0)).sum(-1) + z_loss * lse**2
    pull = target.sum(-1, keepdims=True) + 2 * z_loss * lse[..., None]
    return loss, pull * np.exp(log_p) - target


def filtered(dz, eps, block=512):
    """(dz without its small blocks, the mass that a token lost), of one chunk."""
    kept = np.array(dz)
    for start in range(0, dz.shape[-1], block):
        part = kept[..., start : start + block]
        if np.abs(part).max() < eps:
            part[...] = 0
    return kept, np.abs(dz - kept).sum(-1)
