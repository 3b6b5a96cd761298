"""`scan` takes a function, so that its tests are its own."""

from jaxtricks import metagrad
from tests.case import Case

CASES = [Case(metagrad.scan, kind="own", tests="tests/metagrad/test_scan.py")]
