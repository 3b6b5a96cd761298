"""The core takes functions, so that its tests are its own."""

from jaxtricks import metagrad
from tests.case import Case

CASES = [
    Case(metagrad.check, kind="own", tests="tests/metagrad/test_check.py"),
    Case(metagrad.metasmoothness, kind="own", tests="tests/metagrad/test_check.py"),
    Case(metagrad.plan, kind="own", tests="tests/metagrad/test_plan.py"),
    Case(metagrad.replay, kind="own", tests="tests/metagrad/test_replay.py"),
]
