"""The benchmark of meta-gradients: what it counts, and where its tables go."""

from experiments.benchmarks import metagrad as bench


def test_what_is_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """In this process, where a kill is an exception."""

    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr(bench.os, "kill", kill)
    flags = bench.Benchmark(
        disk_steps=24, segment=8, examples=16, batch_size=4, width=8
    )
    found = []
    for at in (0, 40, 0):  # the second on the way back
        try:
            found.append(bench.disk_run(flags, tmp_path / f"{len(found)}", at))
        except Killed:
            found.append(bench.disk_run(flags, tmp_path / f"{len(found)}", 0))
    bits = [bits for bits, _ in found]
    assert bits[0] == bits[1] == bits[2]
    assert found[1][1] < found[0][1]  # it goes on, and does not begin anew


def test_its_tables_go_between_the_markers(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setattr(bench, "page", lambda flags, console: "the tables")
    for _ in range(2):
        bench.main(bench.Benchmark(docs=page))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.count("the tables") == 1
