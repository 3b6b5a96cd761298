"""One-gradient methods: the authors' loss lines in torch, and numpy oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import sharpness
from tests import oracles as oracle
from tests.case import Golden
from tests.oracles import numbers
from tests.sharpness.golden import PARAMS, loss_fn

SAF = "AngusDujw/SAF@6e85600 in torch f64, arXiv:2205.14083"
ORACLE = "numpy f64 oracle of arXiv:2205.14083 eq. 7"


def saf_losses(saf, epochs=10):
    """Losses of two batches an epoch, then b and w; SGD(0.5) on softmax regression."""
    tx = optax.sgd(0.5)
    everyone = jnp.asarray(oracle.X), jnp.asarray(oracle.Y)

    @jax.jit
    def step(params, state, batch, index, epoch):
        x, y = batch

        def loss_fn(params):
            losses, after = saf.update(
                x @ params["w"] + params["b"][None],
                y,
                state,
                index=index + 1,
                epoch=epoch,
            )
            return jnp.mean(losses), after

        (loss, after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, _ = tx.update(grads, tx.init(params))
        return loss, optax.apply_updates(params, updates), after

    params, state, seen = jax.tree.map(jnp.asarray, PARAMS), saf.init(7, 3), []
    for epoch in range(epochs):
        for index in (jnp.arange(3), jnp.arange(3, 5)):
            batch = jax.tree.map(lambda x, i=index: x[i], everyone)
            loss, params, state = step(params, state, batch, index, epoch)
            seen.append(loss)
    return np.array([*seen, *params["b"], *np.ravel(params["w"])])


def mesa_losses(mesa, epochs=9):
    """The same with one batch an epoch."""
    tx, x = optax.sgd(0.5), jnp.asarray(oracle.X)

    def model(params):
        return x @ params["w"] + params["b"][None]

    def step(carry, epoch):
        params, state = carry

        def loss_fn(params):
            losses, after = mesa.update(
                model(params),
                jnp.asarray(oracle.Y),
                state,
                params=params,
                forward=model,
                epoch=epoch,
            )
            return jnp.mean(losses), after

        (loss, after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, _ = tx.update(grads, tx.init(params))
        return (optax.apply_updates(params, updates), after), loss

    params = jax.tree.map(jnp.asarray, PARAMS)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(epochs)))
    (params, _), seen = run((params, mesa.init(params)))
    return np.array([*seen, *params["b"], *np.ravel(params["w"])])


SAF_DEFAULT = numbers(
    """
    2.68202868 2.39019394 1.13065242 1.621364177 0.7169308254 1.065157995
    0.5537445831 0.7376279776 0.4643767506 0.5392167868 0.4070535587
    0.4110213084 0.3824931857 0.3669937716 0.3539072609 0.3019453053
    0.3288362643 0.2557915243 0.3070161888 0.2203508967 -0.3945002442
    -0.7779887729 0.7154403625 -0.6998156766 9.561995258e-05 -0.001171348657
    0.8577203105 -0.6713807216 -1.000934633 -0.2898297924 0.6338203745
    -1.639610435
    """
)
SAF_OTHER = numbers(
    """
    2.68202868 2.39019394 1.13065242 1.621364177 0.7169308254 1.065157995
    0.5537445831 0.7376279776 0.4746227101 0.5592395722 0.4203105962
    0.4306779064 0.3778482816 0.3442362413 0.3446687784 0.2840341986
    0.3163794284 0.2369754578 0.2922993484 0.202319478 -0.3957666011
    -0.8026423438 0.7413602903 -0.7289355536 0.0255341994 0.002509948872
    0.9023157478 -0.6921395801 -1.024771211 -0.2774548283 0.6642337054
    -1.68239873
    """
)
MESA_DEFAULT = numbers(
    """
    2.576513901 1.783273464 1.335390164 1.083496912 0.9119517945
    0.7853701509 1.083068666 1.004330295 0.9536482327 -0.2151099388
    -0.5486886933 0.3067499776 -0.1613425362 -0.282451445 -0.2570974241
    0.2827515061 -0.5678795304 -0.5294670194 -0.6740952553 0.2466120528
    -0.8681366504
    """
)
MESA_OTHER = numbers(
    """
    2.576513901 1.783273464 1.414852662 1.193720327 1.018532661 0.8810533328
    0.7726959384 0.6731637872 0.5920422564 -0.1416657963 -0.5365908281
    0.2212079698 -0.1370974607 -0.2260706909 -0.3377232538 0.4063498079
    -0.5177100198 -0.7032348318 -0.6184076743 0.3029819692 -0.9801941477
    """
)
LESS = {"lam": 0.16, "temperature": 2.0, "lag": 2, "start": 3, "stop": 8}
MORE = {"lam": 0.8, "temperature": 2.0, "beta": 0.6, "start": 1, "stop": 7}

PAST = np.random.default_rng(8).normal(size=(5, 3)).astype(np.float32)


def moved(temperature):
    log_p, log_q = (
        oracle.log_softmax(np.float64(x) / temperature) for x in (PAST, oracle.X)
    )
    return temperature**2 * np.sum(np.exp(log_p) * (log_p - log_q), -1)


BSAM = "team-approx-bayes/bayesian-sam@936eec1 in f64 without noise, arXiv:2210.01620"
BSAM_ORACLE = "numpy f64 oracle of arXiv:2210.01620 alg. 1"
BSAM_DEFAULT = numbers(
    """
    -0.1262780841 -0.1408868509 -0.1899154576 0.5169733037 -0.7584276005
    -0.4594990399 -0.5238759717 -0.4346071136 0.1442108487 -0.8667721311
    -0.1699576478 -0.2586183768 0.9965233935 0.9958515182 0.996180772
    0.9959384191 0.9970322928 0.9966026745 0.9983291726 0.9962613073
    0.9990823388 0.9967444633 0.9969958229 0.9982320315
    """
)
BSAM_OTHER = numbers(
    """
    -0.08662275425 -0.1409685371 -0.2165551957 0.48899341 -0.6941429412
    -0.4800567001 -0.4718965373 -0.3861096077 0.1141297034 -0.7984196192
    -0.1236152592 -0.2891485532 0.5166726249 0.4777654465 0.4923847795
    0.4830767799 0.5513852753 0.5209242275 0.6415183907 0.4984338387
    0.6923524183 0.5313758233 0.5480669006 0.6311623535
    """
)
QUIET = {"key": jax.random.key(0), "examples": 1e20}
OTHER = {"rho": 0.1, "beta1": 0.8, "beta2": 0.9, "damping": 0.05, "init_scale": 0.7}


def bsam_train(tx, steps=5):
    """b, w and the scales of both after some steps on softmax regression."""
    grad_fn = jax.grad(loss_fn)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, PARAMS)
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    leaves = jax.tree.leaves((params, optax.tree.get(state, "scale")))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def noisy_step(tx):
    """One step on |w|^2 / 2 + c w: the noise is what the update tells of it."""
    params = jnp.asarray(oracle.W)
    updates, state = tx.update(
        params, tx.init(params), params, grad_fn=lambda w: w + jnp.asarray(oracle.W)
    )
    return np.stack([updates, state.inner.scale])


def noisy_oracle(rate, rho, key, examples, prior_precision, damping, beta2, init_scale):
    own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 0), 0), 0)
    noise = np.float64(jax.random.normal(own, oracle.W.shape))
    w, d = np.float64(oracle.W), prior_precision / examples
    g = 2 * w + noise / np.sqrt(examples * init_scale)
    h = 2 * w + rho * g / init_scale
    wide = np.sqrt(init_scale) * np.abs(g) + damping + d
    after = beta2 * init_scale + (1 - beta2) * wide
    return np.stack([-rate * 0.1 * (h + d * w) / init_scale, after])


NOISY = {
    "rho": 0.3,
    "key": jax.random.key(9),
    "examples": 20.0,
    "prior_precision": 3.0,
    "damping": 0.2,
    "beta2": 0.6,
    "init_scale": 0.5,
}

MGPO = "llm172/LoRA-MGPO@b45656c in torch f64, arXiv:2502.14538"
GGPO = "numpy f64 oracle, arXiv:2502.14538: "
_rng = np.random.default_rng(11)
W0 = _rng.normal(size=(3, 4)).astype(np.float32)
PAIR = {
    "A": (0.5 * _rng.normal(size=(2, 4))).astype(np.float32),
    "B": (0.5 * _rng.normal(size=(3, 2))).astype(np.float32),
}
INPUTS = _rng.normal(size=(5, 4)).astype(np.float32)
WANTED = _rng.normal(size=(5, 3)).astype(np.float32)


def mgpo_train(scaling):
    """Losses of five steps, gbar, A and B; SGD(0.1, momentum 0.9)."""

    def train(mgpo):
        init, perturb, update = mgpo
        tx = optax.sgd(0.1, momentum=0.9)

        def loss_fn(pairs, weight):
            whole = weight + scaling * pairs["B"] @ pairs["A"]
            return jnp.mean((INPUTS @ whole.T - WANTED) ** 2)

        def step(carry, _):
            pairs, opt, state = carry
            momentum = optax.tree.get(opt, "trace")
            moved = perturb(pairs, jnp.asarray(W0), state, momentum=momentum)
            loss, grads = jax.value_and_grad(loss_fn)(pairs, moved)
            state = update(grads, state, pairs)
            updates, opt = tx.update(grads, opt)
            return (optax.apply_updates(pairs, updates), opt, state), loss

        pairs = jax.tree.map(jnp.asarray, PAIR)
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=5))
        (pairs, _, state), seen = run((pairs, tx.init(pairs), init(pairs)))
        return np.array([*seen, state.norm, *pairs["A"].ravel(), *pairs["B"].ravel()])

    return train


MGPO_DEFAULT = numbers(
    """
    1.532455835 1.395977372 1.240886849 1.082756654 0.9407031842 1.140681204
    0.50157315 -0.2591735811 0.258990571 -0.1139912446 0.1341650943
    0.1811051937 0.5310368822 0.00972313615 -0.1646511659 -0.5504866534
    0.4060542788 -0.1596913347 -0.9837915524 -0.4106782268
    """
)
MGPO_OTHER = numbers(
    """
    2.113520492 1.432075763 1.012571375 0.8048138088 0.594685459 2.864807843
    0.4155511161 -0.4805163943 0.4435033962 -0.4937053743 -0.2798149135
    0.3695496468 0.8655105104 -0.3789572762 0.006836707713 -0.3633335288
    0.4595034823 -0.148206809 -0.9103395283 -0.1104752382
    """
)
MGPO_PLAIN = numbers(
    """
    2.113520492 1.324735902 0.9578188694 0.7327767191 0.5339346344
    2.489123866 0.4297431554 -0.4951546485 0.4148871133 -0.4688280576
    -0.2445532813 0.3300011437 0.8301907613 -0.3637823011 -0.0004541862189
    -0.3683545802 0.4585082952 -0.1359073489 -0.9257784051 -0.1494742865
    """
)
FAR = {"rho": 0.2, "beta": 0.5, "scaling": 2.0}
GRADS = {
    "A": _rng.normal(size=(2, 4)).astype(np.float32),
    "B": _rng.normal(size=(3, 2)).astype(np.float32),
}


def ggpo_noise(ggpo):
    """The scales of the rows: the noise of the second step against its draws."""
    init, perturb, update = ggpo
    state = update(GRADS, init(PAIR), PAIR)
    key = jax.random.key(4)
    noise = perturb(PAIR, W0, state, key=key) - W0
    draws = jax.random.normal(jax.random.split(key, 1)[0], W0.shape)
    return np.sum(noise * draws, axis=1) / np.sum(draws**2, axis=1)


def ggpo_scales(sigma, beta, scaling, trainer):
    a, b, w = (np.float64(x) for x in (PAIR["A"], PAIR["B"], W0))
    da, db = np.float64(GRADS["A"]), np.float64(GRADS["B"])
    g = np.linalg.norm(scaling * (db @ a + b @ da), axis=1)
    if trainer:
        m = np.mean(np.linalg.norm(w, axis=1))
        size = np.sqrt(m**2 + np.linalg.norm(b @ a, axis=1) ** 2)
        return (sigma * size + beta * g**2) / np.sqrt(3)
    size = np.linalg.norm(w + scaling * b @ a, axis=1)
    return np.sqrt(sigma**2 / 4 * (size**2 + beta * g**2))


GUBRI = "numpy f64 oracle, arXiv:2304.02688: "
PIXELS = np.random.default_rng(5).uniform(size=(4, 6)).astype(np.float32)
NET = np.random.default_rng(6).normal(size=(6, 3)).astype(np.float32)
MARKS = np.array([0, 2, 1, 1])


def net_losses(x):
    log_p = jax.nn.log_softmax(x @ NET)
    return -jnp.sum(log_p * np.eye(3, dtype=np.float32)[MARKS], axis=-1)


def bim(epsilon=4 / 255, step_size=None, steps=50, low=0.0, high=1.0):
    step_size = epsilon / 10 if step_size is None else step_size
    origin = x = np.float64(PIXELS)
    for _ in range(steps):
        p = oracle.softmax(x @ np.float64(NET))
        x = x + step_size * np.sign((p - np.eye(3)[MARKS]) @ np.float64(NET).T)
        x = np.clip(np.clip(x, origin - epsilon, origin + epsilon), low, high)
    return x


ATTACK = {"epsilon": 0.3, "step_size": 0.07, "steps": 7, "low": 0.1, "high": 0.9}
VOTES = np.random.default_rng(3).normal(size=(2, 3, 6, 4)).astype(np.float32)
TRUTH = np.array([0, 3, 1, 2, 2, 0])
LIVE = np.array([True, True, False, True, True, True])

# f32 rounds T^2 log p to 5e-6, and 20 steps of training the weights to 2e-7.
ROWS = [
    Golden(sharpness.trajectory, (oracle.X, PAST), {}, moved(5.0), ORACLE, atol=5e-6),
    Golden(
        sharpness.trajectory,
        (oracle.X, PAST),
        {"temperature": 1.5},
        moved(1.5),
        ORACLE,
        atol=1e-6,
    ),
    Golden(sharpness.saf, (), {}, SAF_DEFAULT, SAF, saf_losses, atol=3e-7),
    Golden(sharpness.saf, (), LESS, SAF_OTHER, SAF, saf_losses, atol=3e-7),
    Golden(sharpness.mesa, (), {}, MESA_DEFAULT, SAF, mesa_losses),
    Golden(sharpness.mesa, (), MORE, MESA_OTHER, SAF, mesa_losses),
    Golden(
        sharpness.bsam,
        (0.5, 0.01),
        {**QUIET, "prior_precision": 0.0},
        BSAM_DEFAULT,
        BSAM,
        bsam_train,
    ),
    Golden(
        sharpness.bsam,
        (0.2,),
        {**QUIET, "prior_precision": 0.05e20, **OTHER},
        BSAM_OTHER,
        BSAM,
        bsam_train,
    ),
    Golden(
        sharpness.bsam,
        (0.7,),
        NOISY,
        noisy_oracle(0.7, **NOISY),
        BSAM_ORACLE,
        noisy_step,
    ),
    Golden(sharpness.lora_mgpo, (), {}, MGPO_DEFAULT, MGPO, mgpo_train(1.0), 1e-5),
    Golden(sharpness.lora_mgpo, (), FAR, MGPO_OTHER, MGPO, mgpo_train(2.0), 1e-5),
    Golden(
        sharpness.lora_mgpo,
        (),
        {**FAR, "normalize": False},
        MGPO_PLAIN,
        MGPO,
        mgpo_train(2.0),
        1e-5,
        atol=1e-7,
    ),
    *(
        Golden(
            sharpness.lora_ggpo,
            (),
            {"sigma": sigma, "beta": beta, "scaling": scaling, "form": form},
            ggpo_scales(sigma, beta, scaling, form == "trainer"),
            GGPO + form,
            ggpo_noise,
            1e-5,
        )
        for form in ("variance", "trainer")
        for sigma, beta, scaling in ((0.03, 0.01, 1.0), (0.5, 0.3, 2.0))
    ),
    Golden(sharpness.bim_attack, (net_losses, PIXELS), {}, bim(), GUBRI + "BIM"),
    Golden(
        sharpness.bim_attack,
        (net_losses, PIXELS),
        ATTACK,
        bim(**ATTACK),
        GUBRI + "BIM",
    ),
    Golden(
        sharpness.transfer_success,
        (VOTES, TRUTH),
        {},
        np.mean(VOTES.argmax(-1) != TRUTH, -1),
        GUBRI + "the share that is misled",
        lambda found: found.rate,
    ),
    Golden(
        sharpness.transfer_success,
        (VOTES, TRUTH),
        {"where": LIVE},
        np.mean((VOTES.argmax(-1) != TRUTH)[..., LIVE], -1),
        GUBRI + "the share that is misled",
        lambda found: found.rate,
    ),
]
