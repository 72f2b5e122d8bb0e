"""Holds dashboards against the types of Grafana's own SDK, which is generated from the schemas that Grafana is built from.

usage: types.py FILE...   (PYTHONPATH: where grafana_foundation_sdk is)

Prints a line for each value that is not of its type, each field that the type does not have, and each unit Grafana does not
know. The SDK itself reads a dashboard leniently; its annotations say what a value may be.
"""

import enum
import json
import re
import sys
import types
import typing

from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import (
    dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries, units)

PANELS = {
    "heatmap": heatmap, "stat": stat, "state-timeline": statetimeline, "table": table, "timeseries": timeseries}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
# What each class says of its fields; looking it up again and again would take seconds.
HINTS = {}


def hints(cls):
    if cls not in HINTS:
        HINTS[cls] = typing.get_type_hints(cls)
    return HINTS[cls]


def field(cls, key):
    """The type of a field by its name in JSON; the SDK writes it in Python's way, and beside keywords with `_val`."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda upper: "_" + upper.group(1).lower(), key)
    snake = snake[:1].lower() + snake[1:]
    for name in (snake, snake + "_val"):
        if name in hints(cls):
            return hints(cls)[name]
    return None


def fit(value, kind, path):
    """What is wrong with a value of this type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is variants.Dataquery:
        return fit(value, prometheus.Dataquery, path)
    if kind is dashboard.Panel or (isinstance(kind, type) and issubclass(kind, dashboard.Panel)):
        return panel(value, path)
    if kind in (typing.Any, object):
        return []
    if origin in (typing.Union, types.UnionType):
        # Kinds of one thing are told apart by their type, which a new one of each has.
        some = [one for one in args if one is not type(None)]
        kinds = {str(one().type_val): one for one in some if "type_val" in getattr(one, "__annotations__", {})}
        if value is None and len(some) < len(args):
            return []
        if len(some) > 1 and len(kinds) == len(some) and isinstance(value, dict):
            if value.get("type") not in kinds:
                return [f"{path}/type: {value.get('type')!r} is none of {sorted(kinds)}"]
            return fit(value, kinds[value["type"]], path)
        tried = [fit(value, one, path) for one in some]
        # The alternative that fits best says what is wrong.
        return min(tried, key=len)
    if origin is typing.Literal:
        return [] if value in args else [f"{path}: {value!r} is none of {args}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [found for at, one in enumerate(value) for found in fit(one, args[0], f"{path}/{at}")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        return [found for key, one in value.items() for found in fit(one, args[1], f"{path}/{key}")]
    if kind is type(None):
        return [] if value is None else [f"{path}: {value!r} is not null"]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        values = [one.value for one in kind]
        return [] if value in values else [f"{path}: {value!r} is none of {values}"]
    if kind is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        return [] if good else [f"{path}: {value!r} is no number"]
    if kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
        return [] if good else [f"{path}: {value!r} is no whole number"]
    if kind in (str, bool):
        return [] if isinstance(value, kind) else [f"{path}: {value!r} is no {kind.__name__}"]
    if isinstance(kind, typing.TypeVar):
        return []
    return fields(value, kind, path)


def fields(value, cls, path, but=()):
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no {cls.__name__}"]
    found = []
    for key, one in value.items():
        if key in but:
            continue
        kind = field(cls, key)
        if kind is None:
            found.append(f"{path}/{key}: {cls.__name__} has no such field")
        else:
            found += fit(one, kind, f"{path}/{key}")
    return found


def panel(value, path):
    kind = value.get("type")
    if kind == "row":
        return fields(value, dashboard.RowPanel, path)
    if kind not in PANELS:
        return [f"{path}/type: {kind!r} is not looked at"]
    module = PANELS[kind]
    custom = getattr(module, "FieldConfig", None)
    found = fields(value, dashboard.Panel, path, but=("options", "fieldConfig"))
    found += fields(value.get("options", {}), module.Options, f"{path}/options")
    config = value.get("fieldConfig", {})
    found += fields(config, dashboard.FieldConfigSource, f"{path}/fieldConfig", but=("defaults", "overrides"))
    defaults = config.get("defaults", {})
    found += fields(defaults, dashboard.FieldConfig, f"{path}/fieldConfig/defaults", but=("custom",))
    if "custom" in defaults:
        found += own(defaults["custom"], custom, f"{path}/fieldConfig/defaults/custom")
    found += unit(defaults.get("unit"), f"{path}/fieldConfig/defaults/unit")
    for at, override in enumerate(config.get("overrides", [])):
        place = f"{path}/fieldConfig/overrides/{at}"
        found += fit(override, dashboard.DashboardFieldConfigSourceOverrides, place)
        for one in override.get("properties", []):
            name, given = one.get("id", ""), one.get("value")
            there = f"{place}/{name}"
            if name == "unit":
                found += unit(given, there)
            # What is set for one column is what could be set for all.
            if name.startswith("custom."):
                found += own({name.removeprefix("custom."): given}, custom, there)
            else:
                found += fields({name: given}, dashboard.FieldConfig, there)
    return found


def own(value, custom, path):
    """The fields that only panels of this kind have."""
    if custom is None:
        return [f"{path}: panels of this kind have no fields of their own"]
    return fields(value, custom, path)


def unit(value, path):
    return [] if value in UNITS else [f"{path}: Grafana has no unit {value!r}"]


def main():
    wrong = 0
    for file in sys.argv[1:]:
        with open(file, encoding="utf-8") as text:
            whole = json.load(text)
        found = fields(whole, dashboard.Dashboard, "", but=("panels",))
        for at, one in enumerate(whole.get("panels", [])):
            found += panel(one, f"/panels/{at}")
        for line in found:
            print(f"{file}: {line}")
        wrong += len(found)
    sys.exit(1 if wrong else 0)


main()
