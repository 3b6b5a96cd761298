"""Train one model, on a laptop or on a pod: `python -m experiments.train --help`.

The program from top to bottom; what it calls are plain functions of the modules beside
it. See experiments/README.md, and experiments/launch/README.md for several hosts.
"""

import contextlib
import sys

from . import command
from .config import Config, Failed, parse
from .stop import Stop, Stopped


def main(argv: list[str]) -> int:
    return command.main("experiments.train", argv, parse, on_all_hosts)


def on_all_hosts(config: Config, stop: Stop) -> None:
    """Trains together with the other processes, if the environment says there are."""
    from . import cluster, hosts

    cluster.start(config.hosts)
    stop.together()
    with hosts.failing():
        train(config, stop)


def train(config: Config, stop: Stop) -> None:
    """Brings the run to its last step, from its newest good checkpoint if any."""
    import jax
    import numpy as np

    from . import data, driven, evaluate, files, hosts
    from . import mesh as meshes
    from . import step as steps
    from .checkpoints import Checkpoints
    from .tally import ENOUGH, Tally, by_name, trouble
    from .watch import speed, writers
    from .watch.screen import Screen

    training, faults, watch = config.training, config.faults, config.watch
    writers.check(watch)
    first, home = hosts.first(), config.run.runs / config.run.name

    # Devices, data, compiled functions.
    mesh = meshes.make(config.mesh)
    with hosts.unanimous():
        dataset = data.load(config.data, seed=training.seed)
    hosts.alike(config.numbers() | dataset.about)
    program = steps.build(config, dataset, mesh)
    if config.mesh.show_sharding:
        if first:
            print(meshes.show(program.table, program.opt_bytes))
        return
    part, parts = meshes.share(mesh)
    own = {"process": part, "processes": parts}
    stream = data.stream(
        dataset, config.data, steps=training.steps, seed=training.seed, **own
    )
    valid = data.validation(dataset, config.data, batch=config.data.batch_size, **own)
    driver = driven.driver(config.data.mix_by, stream.weights)

    with contextlib.ExitStack() as stack:
        # The run's folder, what is shown, and what is written.
        enter = stack.enter_context
        screen = enter(Screen(config, unit=program.unit, first=first))
        say = screen.say
        with hosts.unanimous():
            if first:
                run = (home, config.numbers(), dataset.about, dict(mesh.shape))
                enter(files.claim(*run, fresh=config.run.fresh, say=say))
        log = enter(writers.Log(home, config, first=first))
        kept = {"keep": faults.keep, "every": faults.save_every}
        saved = enter(Checkpoints(home / "checkpoints", **kept, say=say))
        traced = enter(speed.profile(watch.profile, home / "profile", say))

        def restored():
            """(step, state, the data's state, tally): of the newest good checkpoint."""
            if found := saved.restore(program.like):
                step, state, position, notes = found
                return step, state, position, Tally(**notes)
            tally = Tally(len(dataset.domains), memory=driver.init if driver else [])
            return 0, jax.block_until_ready(program.init()), None, tally

        def fetch():
            """(where the data stand before it, the next batch on the devices)."""
            return stream.get_state(), meshes.put(next(stream), mesh)

        def save():
            position = ahead[0] if ahead else stream.get_state()
            saved.save(step, state, position, tally.notes())

        def due(every):
            return step % every == 0 or step == training.steps

        step, state, position, tally = restored()
        if position is not None:
            stream.set_state(position)
        log.rewind(step)
        if step < training.steps:
            screen.begin(step)
        clock = speed.Clock(
            log.rows[-1]["timing"]["train_s"] if log.rows else 0.0,
            unit=program.unit,
            mfu=lambda s: speed.mfu(
                program.flops, s, mesh.devices.flat, config.model.dtype
            ),
        )
        ahead, began = None, step
        enter(stop.later())

        while step < training.steps:
            saved.check()
            try:
                stop.check()
            except Stopped:
                save()
                raise

            # A step. While the devices work, the next batch is made ready, unless what
            # comes of this step decides what is in it.
            drives = driver and (step + 1) % config.data.mix_every == 0
            _, batch = ahead or fetch()
            timed = clock.lap() if step > began else contextlib.nullcontext()
            with timed, traced(step + 1):
                state, found = program.step(state, batch, tally.limit(faults.spike))
                ahead = None if drives else fetch()
                jax.block_until_ready(found)  # on every device
                # Not jax.device_get, which takes four times as long of small arrays.
                found = jax.tree.map(np.asarray, found)
            if step > began:
                clock.saw(float(found["count"]))
            step += 1
            tally.add(found)

            # Not finite, or a spike: the step has left the state as it was.
            if tally.idle == ENOUGH:
                what = trouble(found, tally.limit(faults.spike))
                raise Failed(
                    f"{ENOUGH} steps in a row were skipped; step {step}: {what}"
                )
            if found["skipped"] and faults.on_nan != "skip":
                tally.rewinds += 1
                what = f"step {step}: {trouble(found, tally.limit(faults.spike))}"
                if faults.on_nan == "stop":
                    raise Failed(
                        f"{what}; try --on-nan skip or rewind, or another --lr"
                    )
                if tally.rewinds > faults.rewinds:
                    what += f", and after {faults.rewinds} rewinds it is enough"
                    raise Failed(f"{what}; try --on-nan skip, or another --lr")
                rewinds = tally.rewinds
                # Not to where a stop came, as the numbers must not depend on that.
                planned = [at for at in saved.steps() if at % faults.save_every == 0]
                saved.drop(max(planned, default=0) + 1)
                step, state, position, tally = restored()
                tally.rewinds = rewinds
                if driver:  # the data go on, drawn as there
                    stream.weights = position and position["weights"]
                log.rewind(step)
                say(f"{what}; back to step {step}, and on with the next batches")
                continue

            if drives:
                losses = tally.means("mix")
                stream.weights, tally.memory = driver.update(losses, tally.memory)
                tally.clear("mix")
            if due(watch.log_every) or due(watch.valid_every):
                row = {"step": step, "loss": found["loss"], "lr": found["lr"]}
                row |= {"grad_norm": found["grad_norm"], "skipped": tally.skipped}
                row["domains"] = by_name(dataset.domains, tally.means("row"))
                if driver:
                    row["mix"] = by_name(dataset.domains, stream.weights)
                if valid and due(watch.valid_every):
                    row["valid"] = evaluate.validate(
                        program.evaluate, state.params, valid, mesh, dataset
                    )
                row["timing"] = clock.read()
                screen.row(log.write(row))
                tally.clear("row")
                tally.skipped = 0
            if due(faults.save_every):
                save()

        saved.wait()
        row = log.rows[-1] if first else {}
        result = {"step": step, "valid": row.get("valid"), "timing": row.get("timing")}
        if first:
            files.write_json(home / "results.json", result)
        screen.end(step, row.get("valid"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
