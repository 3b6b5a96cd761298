"""The benchmark of the training program: how its two loops take turns."""

import itertools

from experiments.benchmarks.train import TURN, Turns


def test_as_many_steps_by_hand_as_of_the_program():
    seen = []

    def step(state, batch):
        seen.append((state, batch))
        return state + 1, 0.0

    turns = Turns(0, step, itertools.count())
    for _ in range(TURN - 1):
        turns.check()
    assert not seen
    for _ in range(2 * TURN + 1):  # so three turns, of which the first compiles
        turns.check()
    assert seen == [(i, i) for i in range(3 * TURN)]
    assert len(turns.program) == len(turns.hand) == 2
    assert min(turns.program + turns.hand) > 0
