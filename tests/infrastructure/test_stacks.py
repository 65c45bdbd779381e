"""CloudFormation and Pulumi make the same: each is held against one table of expectations, and both against each other."""

import copy

import pytest
import yaml

import expected
import program
import template
from given import DEFAULT, GIVEN, ZONES

ALL = GIVEN | {"zones": ZONES}


@pytest.fixture(scope="module")
def runs():
    return {name: program.run(parameters) for name, parameters in ALL.items()}


def of_program(runs: dict, given: str) -> dict:
    made = program.resources(runs[given]["resources"])
    return {name: expected.plain(one) for name, one in sorted(made.items())}


@pytest.mark.parametrize("given", GIVEN)
def test_the_template_makes_what_is_expected(given):
    assert expected.without_long(expected.of_template(GIVEN[given])) == expected.table(given)


@pytest.mark.parametrize("given", GIVEN)
def test_the_program_makes_what_is_expected(runs, given):
    assert expected.without_long(of_program(runs, given)) == expected.table(given)


@pytest.mark.parametrize("given", ALL)
def test_both_make_the_same_to_the_letter(runs, given):
    assert of_program(runs, given) == expected.of_template(ALL[given])


def leaves(value, path=()):
    if isinstance(value, dict):
        for name, one in value.items():
            yield from leaves(one, (*path, name))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from leaves(one, (*path, index))
    else:
        yield path


def test_any_change_of_the_template_is_seen():
    """Each leaf of each resource is changed in turn."""
    document = template.load()
    same = {name: expected.of_template(ALL[name]) for name in ALL}
    paths = [
        (name, *path)
        for name, resource in document["Resources"].items()
        for path in leaves(resource.get("Properties", {}), ("Properties",))
    ]
    assert len(paths) > 300
    unseen = []
    for path in paths:
        changed = copy.deepcopy(document)
        at = changed["Resources"]
        for step in path[:-1]:
            at = at[step]
        # A reference is turned to another parameter, a value to another text.
        at[path[-1]] = "K3sVersion" if path[-1] == "Ref" else "something else"
        try:
            seen = any(
                expected.of_template(ALL[name], copy.deepcopy(changed)) != same[name] for name in ALL
            )
        except Exception:
            # It cannot even be worked out.
            seen = True
        # Pulumi has no name for it (program.NOT_IN_PULUMI).
        is_told = path[0] in {"Server", "StandbyServer"} and "DeviceName" in path
        if seen == is_told:
            unseen.append(path)
    assert not unseen


@pytest.mark.parametrize("given", GIVEN)
def test_both_tell_the_same_outputs(runs, given):
    stack = template.Stack(GIVEN[given])
    told = {name: stack.value(one["Value"]) for name, one in stack.template["Outputs"].items()}
    assert runs[given]["outputs"] == told


def test_both_take_the_same_parameters_with_the_same_defaults():
    declared = yaml.safe_load((program.STACK / "Pulumi.yaml").read_text())["config"]
    mine = {
        name.removeprefix("smartscale:"): (str(about.get("default")), about["description"])
        for name, about in declared.items()
    }
    theirs = {
        program.key(name): (str(about.get("Default")), about["Description"])
        for name, about in template.load()["Parameters"].items()
        if name not in program.NOT_IN_PULUMI
    }
    assert mine == theirs


def test_the_program_is_run_with_the_version_that_it_asks_for():
    from importlib.metadata import version

    for line in (program.STACK / "requirements.txt").read_text().split():
        name, wanted = line.split("==")
        assert version(name) == wanted


@pytest.mark.parametrize("given", GIVEN)
def test_nothing_is_open_to_the_outside(given):
    made = expected.table(given)
    groups = [one for one in made.values() if one["Type"] == "AWS::EC2::SecurityGroup"]
    opened = [rule for group in groups for rule in group.get("SecurityGroupIngress", [])]
    assert {rule["FromPort"] for rule in opened} >= {"30090", "7443"}
    assert all(rule["SourceSecurityGroupId"] == "<MemberGroup id>" and "CidrIp" not in rule for rule in opened)


@pytest.mark.parametrize("given", GIVEN)
def test_machines_keep_their_secrets(given):
    made = expected.table(given)
    machines = [one for one in made.values() if one["Type"] == "AWS::EC2::Instance"]
    assert machines
    for machine in [*machines, made["WorkerTemplate"]["LaunchTemplateData"]]:
        assert machine["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": "1",
        }
        assert all(one["Ebs"]["Encrypted"] == "true" for one in machine["BlockDeviceMappings"])


# Alarms ask for what the coordinator puts (coordinator/src/aws/cloudwatch/metric.rs).
def test_alarms_and_dashboard_ask_for_metrics_that_there_are():
    source = (template.PATH.parents[2] / "coordinator/src/aws/cloudwatch/metric.rs").read_text()
    made = expected.of_template(DEFAULT)
    asked = {(one["MetricName"], one["Namespace"]) for one in made.values() if one["Type"] == "AWS::CloudWatch::Alarm"}
    for widget in made["Dashboard"]["DashboardBody"]["widgets"]:
        asked |= {(metric[1], metric[0]) for metric in widget["properties"]["metrics"]}
    for name, namespace in asked:
        assert namespace == "SmartScale" and f'"{name}"' in source, name
    failure = made["NodeJoinFailure"]["Dimensions"]
    assert {"Name": "ErrorType", "Value": "join_timeout"} in failure and '"ErrorType"' in source
    assert '"join_timeout"' in (template.PATH.parents[2] / "coordinator/src/tell/error_type.rs").read_text()
