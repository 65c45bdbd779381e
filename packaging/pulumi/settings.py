"""What the stack is made of, read from the configuration (Pulumi.yaml has the defaults), and how texts are filled in with it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pulumi
import pulumi_aws as aws
import yaml

# The documents that this stack and the one of CloudFormation have in common.
PACKAGING = Path(__file__).resolve().parent.parent


class Settings(SimpleNamespace):
    """Each key of Pulumi.yaml by its name, and what AWS says of the account."""

    @classmethod
    def read(cls) -> "Settings":
        declared = yaml.safe_load(Path(__file__).with_name("Pulumi.yaml").read_text())["config"]
        config = pulumi.Config("smartscale")
        given = {}
        for key, about in declared.items():
            name = key.removeprefix("smartscale:")
            read = config.get_int if about["type"] == "integer" else config.get
            value = read(name)
            if value is None:
                # Pulumi's engine fills defaults in; without it, in tests, they are these.
                value = about["default"] if "default" in about else config.require(name)
            given[name] = value
        zones = aws.get_availability_zones(state="available").names
        given["zoneA"] = given["zoneA"] or zones[0]
        given["zoneB"] = given["zoneB"] or zones[1]
        given["partition"] = aws.get_partition().partition
        given["region"] = aws.get_region().region
        given["account"] = aws.get_caller_identity().account_id
        return cls(**given)

    @property
    def shared_tokens(self) -> bool:
        return self.joinTokens == "shared"

    @property
    def standby_wanted(self) -> bool:
        return self.standby == "yes"

    @property
    def new_network(self) -> bool:
        return not self.vpc

    def named(self, suffix: str = "") -> dict:
        """The tag that the console shows."""
        return {"Name": f"smartscale-{self.clusterId}{suffix}"}

    def filled(self, path: str, **values) -> pulumi.Output[str]:
        """A document of packaging/, its placeholders filled in with the configuration and with values; a dot of a placeholder
        is a double underscore here."""
        known = {name[0].upper() + name[1:]: value for name, value in vars(self).items()}
        known |= {
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "AWS::AccountId": self.account,
        }
        known |= {name.replace("__", "."): value for name, value in values.items()}
        text = (PACKAGING / path).read_text()
        used = {name: known[name] for name in re.findall(r"\$\{([^}]+)\}", text)}
        return pulumi.Output.all(**used).apply(
            lambda all: re.sub(r"\$\{([^}]+)\}", lambda match: str(all[match[1]]), text)
        )
