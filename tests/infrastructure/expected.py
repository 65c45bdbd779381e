"""The table of expectations: what either stack makes of given parameters (expected/*.yaml), and how both are written for it.

SMARTSCALE_BLESS=1 writes the table anew from the template; what changed is then to be read by a person.
"""

import json
import os
from pathlib import Path

import yaml

import template

FOLDER = Path(__file__).with_name("expected")
# What is left out of the table, since it says itself in a file that both stacks have to agree with in every letter.
LONG = {"UserData", "DashboardBody"}


def plain(value):
    """One form for what has several: numbers and truth as text, tags as a mapping, texts of JSON as what they say."""
    if isinstance(value, dict):
        made = {name: plain(one) for name, one in sorted(value.items())}
        if "DashboardBody" in made and isinstance(made["DashboardBody"], str):
            made["DashboardBody"] = plain(json.loads(value["DashboardBody"]))
        if isinstance(value.get("Tags"), list):
            made["Tags"] = {one["Key"]: plain(one["Value"]) for one in value["Tags"]}
        if "Policies" in made:
            made["Policies"] = {one["PolicyName"]: one["PolicyDocument"] for one in made["Policies"]}
        return made
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def without_long(value):
    if isinstance(value, dict):
        return {name: without_long(one) for name, one in value.items() if name not in LONG}
    return [without_long(one) for one in value] if isinstance(value, list) else value


def of_template(parameters: dict, document: dict | None = None) -> dict:
    made = template.Stack(parameters, document).resources()
    for name in {"Server", "StandbyServer"} & set(made):
        # Pulumi has no name for it (program.NOT_IN_PULUMI).
        del made[name]["BlockDeviceMappings"][0]["DeviceName"]
    return {name: plain(one) for name, one in sorted(made.items())}


def table(name: str) -> dict:
    path = FOLDER / f"{name}.yaml"
    if os.environ.get("SMARTSCALE_BLESS"):
        from given import GIVEN

        FOLDER.mkdir(exist_ok=True)
        written = yaml.safe_dump(without_long(of_template(GIVEN[name])), sort_keys=True, width=120)
        path.write_text(f"# What either stack makes of the parameters `{name}` of given.py.\n{written}")
    return yaml.safe_load(path.read_text())
