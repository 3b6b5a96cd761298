"""The values of parameters: a number, a gradient over the layers, or filters on names.

A setting is a number; a list of numbers, which are spread over the layers and joined by
straight lines; or {filter, value} or a list of them, of which the first holds whose
filter is in the tensor's name.
"""

from collections.abc import Sequence

from ._yaml import Node

Settings = dict[str, Node]


def check(node: Node) -> None:
    """MergeError for what is no setting."""
    if isinstance(node.value, dict):
        return _conditional(node)
    if not isinstance(node.value, list):
        number(node)
        return None
    if not node.value:
        raise node.bad("wanted at least one value")
    filters = [isinstance(x.value, dict) for x in node.value]
    if any(filters) and not all(filters):
        raise node.bad("mixes numbers and {filter, value}")
    for item in node.value:
        if isinstance(item.value, dict):
            _conditional(item)
        else:
            _number(item)
    return None


def _conditional(node: Node) -> None:
    fields = node.fields("value", "filter")
    value = node.wanted(fields, "value")
    for item in value.items() if isinstance(value.value, list) else [value]:
        _number(item)
    if "filter" in fields:
        fields["filter"].text()


def number(node: Node) -> float | None:
    """A finite number; YAML 1.1 reads 1e-5 as text, and a bool is 0 or 1."""
    value = node.value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = node.value
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise node.bad(f"wanted a number, came {node.plain()!r:.60}")
    try:
        value = float(value)
    except OverflowError:
        value = float("inf")
    if value - value != 0:
        raise node.bad(f"wanted a finite number, came {value}")
    return value


def _number(node: Node) -> float:
    found = number(node)
    if found is None:
        raise node.bad("wanted a number, came nothing")
    return found


def evaluate(
    node: Node, tensor: str, t: float, *, discrete: bool = False
) -> float | None:
    """The setting for a tensor at depth t in [0, 1]; None where no filter holds.

    discrete: a gradient picks one of its values, as switches and counts do.
    """
    conditions = [node] if isinstance(node.value, dict) else node.value
    if isinstance(conditions, list) and isinstance(conditions[0].value, dict):
        found = _matching(conditions, tensor)
        return None if found is None else evaluate(found, tensor, t, discrete=discrete)
    if not isinstance(node.value, list):
        return number(node)
    values = [_number(x) for x in node.value]
    at = t * (len(values) - 1)
    low = int(at)
    if discrete:
        return values[low]
    high = min(low + 1, len(values) - 1)
    return (1 - (at - low)) * values[low] + (at - low) * values[high]


def _matching(conditions: list[Node], tensor: str) -> Node | None:
    for condition in conditions:
        wanted = condition.value.get("filter")
        name = None if wanted is None else wanted.value
        if name is None or name == "*" or name in tensor:
            return condition.value["value"]
    return None


def lookup(
    name: str,
    tensor: str,
    t: float,
    places: Sequence[Settings],
    *,
    discrete: bool = False,
) -> tuple[float, Node] | None:
    """The value of the first place that has one, and where that stands."""
    for place in places:
        if name in place:
            found = evaluate(place[name], tensor, t, discrete=discrete)
            if found is not None:
                return found, place[name]
    return None
