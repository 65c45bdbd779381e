"""The stack: what is made, in the order in which one thing needs another. Names are those of packaging/cloudformation."""

import pulumi

import machines
import network
import rights
import seen
import state
from settings import Settings

given = Settings.read()
net = network.make(given)
kept = state.make(given)
told = state.tell(given)
worker = rights.worker(given, kept)
server = rights.server(given, net, kept, told, worker)
template = machines.worker_template(given, net, worker)
instance = machines.server(given, net, kept, told, template, server)
if given.standby_wanted:
    machines.standby(given, net, server)
seen.make(given, told)
if given.trail == "yes":
    seen.trail(given)

pulumi.export("ServerId", instance.id)
pulumi.export("Coordinator", f"{given.serverAddress}:7443")
pulumi.export("WorkerTemplateId", template.id)
pulumi.export("TableName", kept.table.name)
pulumi.export("TopicArn", told.topic.arn)
pulumi.export("NoticesUrl", told.notices.url)
