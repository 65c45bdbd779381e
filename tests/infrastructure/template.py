"""packaging/cloudformation/smartscale.yaml as CloudFormation would make it of given parameters: conditions decided, functions
worked out. What only AWS can know is a token: `<Topic arn>` for `!Ref Topic`, `<Table arn>` for `!GetAtt Table.Arn`."""

import re
from pathlib import Path

import yaml

PATH = Path(__file__).resolve().parents[2] / "packaging" / "cloudformation" / "smartscale.yaml"

# What a reference to a resource of a type is, where it is not its id.
REFERENCE = {
    "AWS::DynamoDB::Table": "name",
    "AWS::IAM::InstanceProfile": "name",
    "AWS::IAM::Role": "name",
    "AWS::Logs::LogGroup": "name",
    "AWS::S3::Bucket": "name",
    "AWS::SNS::Topic": "arn",
    "AWS::SecretsManager::Secret": "arn",
    "AWS::SQS::Queue": "url",
}
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
}
ZONES = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
NOTHING = object()


class Loader(yaml.SafeLoader):
    """Reads `!Ref X` as `{"Ref": X}` and `!F X` as `{"Fn::F": X}`."""


def _function(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "Ref":
        return {"Ref": value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _function)


def load() -> dict:
    return yaml.load(PATH.read_text(), Loader)


class Stack:
    """The template with parameters."""

    def __init__(self, parameters: dict, template: dict | None = None):
        self.template = template or load()
        declared = self.template["Parameters"]
        assert set(parameters) <= set(declared), set(parameters) - set(declared)
        self.parameters = {
            name: parameters.get(name, about.get("Default")) for name, about in declared.items()
        }
        assert None not in self.parameters.values(), self.parameters
        for name, about in declared.items():
            if about["Type"].startswith("AWS::SSM::Parameter::Value"):
                self.parameters[name] = f"<ssm {self.parameters[name]}>"
            if about["Type"] == "CommaDelimitedList" and isinstance(self.parameters[name], str):
                self.parameters[name] = self.parameters[name].split(",")

    def resources(self) -> dict:
        """By logical id: its type and properties."""
        return {
            name: {"Type": resource["Type"], **self.value(resource.get("Properties", {}))}
            for name, resource in self.template["Resources"].items()
            if self.is_made(resource)
        }

    def is_made(self, resource: dict) -> bool:
        return "Condition" not in resource or self.holds(resource["Condition"])

    def holds(self, name: str) -> bool:
        return self.value(self.template["Conditions"][name])

    def value(self, node):
        if isinstance(node, list):
            values = [self.value(one) for one in node]
            return [one for one in values if one is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, argument)] = node.items()
            if name == "Ref":
                return self.reference(argument)
            if name.startswith("Fn::"):
                return self.function(name.removeprefix("Fn::"), argument)
        values = {key: self.value(one) for key, one in node.items()}
        return {key: one for key, one in values.items() if one is not NOTHING}

    def reference(self, name: str):
        if name == "AWS::NoValue":
            return NOTHING
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        resource = self.made(name)
        return f"<{name} {REFERENCE.get(resource['Type'], 'id')}>"

    def made(self, name: str) -> dict:
        resource = self.template["Resources"][name]
        assert self.is_made(resource), f"{name} is referred to and not made"
        return resource

    def attribute(self, name: str, attribute: str) -> str:
        resource = self.made(name)
        if resource["Type"] == "AWS::SecretsManager::Secret":
            assert attribute == "Id"
            attribute = "arn"
        token = f"<{name} {attribute.lower()}>"
        # The ARN of a log group is given with its streams.
        return f"{token}:*" if resource["Type"] == "AWS::Logs::LogGroup" else token

    def function(self, name: str, argument):
        match name:
            case "GetAtt":
                return self.attribute(*argument)
            case "If":
                condition, yes, no = argument
                return self.value(yes if self.holds(condition) else no)
            case "Sub":
                return self.substituted(*(argument if isinstance(argument, list) else [argument, {}]))
            case "Select":
                index, values = argument
                return self.value(values)[int(index)]
            case "GetAZs":
                assert argument == "", "of this region"
                return ZONES
            case "Join":
                separator, values = argument
                return separator.join(str(one) for one in self.value(values))
            case "Equals":
                left, right = argument
                return self.value(left) == self.value(right)
            case "Not":
                return not self.value(argument[0])
            case "Base64":
                return self.value(argument)
        raise AssertionError(f"Fn::{name} is not known here")

    def substituted(self, text: str, values: dict) -> str:
        def fill(match):
            name = match[1]
            if name in values:
                return str(self.value(values[name]))
            if "." in name:
                return self.attribute(*name.split(".", 1))
            return str(self.reference(name))

        return re.sub(r"\$\{([^!}][^}]*)\}", fill, text)
