"""moto's EC2 with what it lacks and a fleet controller relies on.

usage: server.py PORT            (loopback; MOTO_… variables as for moto_server)

- ClientToken: the same token and request give the first answer again; the same token with another request is refused
  (IdempotentParameterMismatch). https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
- CreateFleet of type instant over several overrides: each offering (type, zone, market) has a capacity that the test
  sets; the fleet takes what there is, in the overrides' order, and reports an error for each offering that had too
  little, as EC2 does. (EC2 itself ignores the order.)
- Spot prices that the test sets, in pages (moto's own are all 0.00001 and come in one), and AWS's price list, of which
  GetProducts is answered for a few types, or those that the test sets.
- Faults that the test sets: an error code before or after the call took effect, a lost answer, a delay.
- A log of all calls.

Control, JSON: PUT /_rig/offerings, PUT /_rig/prices, PUT /_rig/faults, GET /_rig/calls, GET /_rig/health.
  offering: {"instance_type", "zone", "market": "spot"|"on-demand", "available": N, "code"?, "message"?}
            a missing key matches all; what no offering names is unlimited
  prices:   {"spot": [{"instance_type", "zone", "price", "product", "at"}], "on_demand": {type: price}}, each optional
  fault:    {"action", "code"?, "message"?, "status"?, "when": "before"|"after", "drop"?: true, "delay_ms"?,
             "times"?: N, "matching"?: "text that the request's parameters must contain"}
"""

import copy
import hashlib
import io
import json
import re
import socket
import sys
import threading
import time
import uuid
from datetime import datetime, timezone
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import run_simple

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15"
ElementTree.register_namespace("", NAMESPACE)
REGION = "us-east-1"
# On-demand prices, unless the test sets others: USD per hour.
PRICE_LIST = {"t3.small": "0.0208000000", "t3.medium": "0.0416000000", "m5.large": "0.0960000000"}
# Calls that take a ClientToken and make something.
IDEMPOTENT = {"CreateFleet", "RunInstances", "CreateLaunchTemplate", "CreateLaunchTemplateVersion"}


def tag(name):
    return f"{{{NAMESPACE}}}{name}"


class Answer:
    """A whole WSGI response, so that it can be kept and given again."""

    def __init__(self, status, body, headers=None):
        self.status = status
        self.body = body
        self.headers = headers or [("Content-Type", "text/xml;charset=UTF-8")]

    def ok(self):
        return self.status.startswith("2")

    def start(self, start_response):
        headers = [h for h in self.headers if h[0].lower() != "content-length"]
        start_response(self.status, headers + [("Content-Length", str(len(self.body)))])
        return [self.body]


def error(code, message, status=400):
    reasons = {400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error", 503: "Service Unavailable"}
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?><Response><Errors><Error><Code>{code}</Code>"
        f"<Message>{message}</Message></Error></Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
    )
    return Answer(f"{status} {reasons.get(status, 'Error')}", body.encode())


class LostAnswer(Exception):
    """The connection ends without a response."""


class Rig:
    def __init__(self, moto):
        self.moto = moto
        self.lock = threading.Lock()
        self.calls = []
        self.faults = []
        self.offerings = []
        self.prices = {}
        self.tokens = {}

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        path = environ.get("PATH_INFO", "/")
        if path.startswith("/_rig/"):
            return self.control(environ["REQUEST_METHOD"], path, body).start(start_response)
        parameters = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = parameters.get("Action")
        if environ.get("HTTP_X_AMZ_TARGET") == "AWSPriceListService.GetProducts":
            return self.get_products(environ, json.loads(body)).start(start_response)
        if action is None:
            # Another service of moto's: passed through as it is.
            environ["wsgi.input"] = io.BytesIO(body)
            return self.moto(environ, start_response)
        try:
            answer = self.call(environ, action, parameters)
        except LostAnswer:
            # The client sees the connection end.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            answer = error("InternalError", "the answer is lost", 500)
        return answer.start(start_response)

    # Control.

    def control(self, method, path, body):
        def as_json(value):
            return Answer("200 OK", json.dumps(value).encode(), [("Content-Type", "application/json")])

        with self.lock:
            if path == "/_rig/health":
                return as_json({"status": "ok"})
            if path == "/_rig/calls":
                return as_json(self.calls)
            if path == "/_rig/offerings" and method == "PUT":
                self.offerings = json.loads(body)
                return as_json(self.offerings)
            if path == "/_rig/prices" and method == "PUT":
                self.prices = json.loads(body)
                return as_json(self.prices)
            if path == "/_rig/faults" and method == "PUT":
                self.faults = json.loads(body)
                return as_json(self.faults)
        return Answer("404 Not Found", b"{}", [("Content-Type", "application/json")])

    # One EC2 call: log, fault before, effect (with token), fault after. It meets the faults that were set when it came:
    # one that is slow does not use up what a test sets for a later call.

    def log(self, environ, action, parameters):
        """Takes a call into the log; its answer is added when there is one."""
        signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        entry = {
            "at": datetime.now(timezone.utc).isoformat(),
            "key": signed[1] if signed else "",
            "action": action,
            "client_token": parameters.get("ClientToken"),
            "parameters": parameters,
        }
        with self.lock:
            self.calls.append(entry)
        return entry

    def call(self, environ, action, parameters):
        entry = self.log(environ, action, parameters)
        with self.lock:
            faults = self.faults
        before = self.take_fault(faults, action, parameters, "before")
        if before is not None:
            entry["answer"] = before.get("code") or "lost"
            return self.fail(before)
        answer = self.idempotent(environ, action, parameters)
        if action in ("CreateFleet", "RunInstances"):
            found = dict.fromkeys(re.findall(rb">(i-[0-9a-f]{8,})<", answer.body))
            entry["instances"] = [instance.decode() for instance in found]
        # What is answered has its instances.
        entry["answer"] = answer.status
        after = self.take_fault(faults, action, parameters, "after")
        if after is not None:
            entry["answer"] += ", then " + (after.get("code") or "lost")
            return self.fail(after)
        return answer

    def take_fault(self, faults, action, parameters, when):
        delay = 0
        chosen = None
        text = urlencode(parameters)
        with self.lock:
            for fault in faults:
                if fault["action"] not in (action, "*") or fault.get("when", "before") != when:
                    continue
                if fault.get("matching", "") not in text or fault.get("times", 1) == 0:
                    continue
                if "times" in fault:
                    fault["times"] -= 1
                delay = fault.get("delay_ms", 0)
                chosen = fault if "code" in fault or fault.get("drop") else None
                break
        time.sleep(delay / 1000)
        return chosen

    @staticmethod
    def fail(fault):
        if fault.get("drop"):
            raise LostAnswer
        return error(fault["code"], fault.get("message", "injected by the test"), fault.get("status", 400))

    def idempotent(self, environ, action, parameters):
        token = parameters.get("ClientToken")
        if action not in IDEMPOTENT or not token:
            return self.execute(environ, action, parameters)
        request = hashlib.sha256(json.dumps(sorted(parameters.items())).encode()).hexdigest()
        with self.lock:
            slot = self.tokens.setdefault((action, token), {"lock": threading.Lock(), "request": request})
        with slot["lock"]:
            if slot["request"] != request:
                return error(
                    "IdempotentParameterMismatch",
                    "The client token you have provided is associated with a different request.",
                )
            if "answer" not in slot:
                answer = self.execute(environ, action, parameters)
                if not answer.ok():
                    # A refused request has used up nothing.
                    with self.lock:
                        self.tokens.pop((action, token), None)
                    return answer
                slot["answer"] = answer
            return slot["answer"]

    def execute(self, environ, action, parameters):
        if action == "CreateFleet" and parameters.get("Type") == "instant":
            return self.create_fleet(environ, parameters)
        if action == "DescribeSpotPriceHistory" and "spot" in self.prices:
            return Answer("200 OK", spot_page(self.prices["spot"], parameters))
        return self.forward(environ, parameters)

    # https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html, one type a page.

    def get_products(self, environ, request):
        self.log(environ, "GetProducts", {})["answer"] = "200 OK"
        terms = {term["Field"]: term["Value"] for term in request.get("Filters", [])}
        prices = self.prices.get("on_demand", PRICE_LIST)
        if terms.get("operatingSystem") != "Linux" or terms.get("regionCode") != REGION:
            prices = {}
        found = sorted(name for name in prices if terms.get("instanceType", name) == name)
        position = int(request.get("NextToken") or 0)
        page = {"FormatVersion": "aws_v1", "PriceList": [product(name, prices[name]) for name in found[position : position + 1]]}
        if position + 1 < len(found):
            page["NextToken"] = str(position + 1)
        return Answer("200 OK", json.dumps(page).encode(), [("Content-Type", "application/x-amz-json-1.1")])

    def forward(self, environ, parameters):
        body = urlencode(parameters).encode()
        inner = copy.copy(environ)
        inner["wsgi.input"] = io.BytesIO(body)
        inner["CONTENT_LENGTH"] = str(len(body))
        seen = {}

        def start_response(status, headers, _exc_info=None):
            seen["status"], seen["headers"] = status, headers

        chunks = self.moto(inner, start_response)
        return Answer(seen["status"], b"".join(chunks), seen["headers"])

    # CreateFleet of type instant, offering by offering.

    def create_fleet(self, environ, parameters):
        market = parameters.get("TargetCapacitySpecification.DefaultTargetCapacityType", "on-demand")
        wanted = int(parameters.get("TargetCapacitySpecification.TotalTargetCapacity", "0"))
        fleet_id, instances, errors = f"fleet-{uuid.uuid4()}", [], []
        for override in overrides_of(parameters):
            if wanted == 0:
                break
            zone = self.zone_of(override)
            granted, shortage = self.take_capacity(override.get("InstanceType"), zone, market, wanted)
            if shortage is not None:
                errors.append((shortage, override, zone))
            if granted == 0:
                continue
            answer = self.forward(environ, with_override(parameters, override, granted))
            if not answer.ok():
                # A wrong type, image or template fails the offering, not the call.
                root = ElementTree.fromstring(answer.body)
                code = root.findtext(".//{*}Code") or "InternalError"
                errors.append(({"code": code, "message": root.findtext(".//{*}Message")}, override, zone))
                continue
            root = ElementTree.fromstring(answer.body)
            fleet_id = root.findtext(tag("fleetId")) or fleet_id
            brought = root.findall(f"{tag('fleetInstanceSet')}/{tag('item')}")
            self.name_template(parameters, override["_config"], brought)
            instances += brought
            wanted -= granted
        return Answer("200 OK", fleet_answer(fleet_id, instances, errors, market))

    def name_template(self, parameters, config, brought):
        """Tags the instances with their launch template and its version, as EC2 does and moto only without a fleet, and gives
        them its profile."""
        backend = get_backend("ec2")[DEFAULT_ACCOUNT_ID][REGION]
        chosen = f"LaunchTemplateConfigs.{config}.LaunchTemplateSpecification."
        by_id, name = (parameters.get(chosen + key) for key in ("LaunchTemplateId", "LaunchTemplateName"))
        template = backend.get_launch_template(by_id) if by_id else backend.get_launch_template_by_name(name)
        version = parameters.get(chosen + "Version", "$Default")
        named = {"$Default": template.default_version_number, "$Latest": template.latest_version_number}
        tags = {
            "aws:ec2launchtemplate:id": template.id,
            "aws:ec2launchtemplate:version": str(named.get(version, version)),
        }
        # Nor does moto give the instances of a fleet the template's profile.
        data = template.get_version(int(tags["aws:ec2launchtemplate:version"])).data
        profile = data.get("IamInstanceProfile", {})
        arn = profile.get("Arn") or f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:instance-profile/{profile.get('Name')}"
        for item in (item for one in brought for item in one.iterfind(".//{*}instanceIds/{*}item")):
            instance = backend.get_instance(item.text)
            instance.add_tags(tags)
            if profile:
                instance.iam_instance_profile = {"Arn": arn, "Id": "AIPARIG0000000000000"}

    def zone_of(self, override):
        if override.get("AvailabilityZone"):
            return override["AvailabilityZone"]
        subnets = get_backend("ec2")[DEFAULT_ACCOUNT_ID][REGION].subnets
        for subnet in (by_id.get(override.get("SubnetId")) for by_id in subnets.values()):
            if subnet is not None:
                return subnet.availability_zone
        return None

    def take_capacity(self, instance_type, zone, market, wanted):
        with self.lock:
            for offering in self.offerings:
                named = {"instance_type": instance_type, "zone": zone, "market": market}
                if any(offering.get(key, value) != value for key, value in named.items()):
                    continue
                granted = min(wanted, offering["available"])
                offering["available"] -= granted
                if granted == wanted:
                    return granted, None
                code = offering.get("code", "InsufficientInstanceCapacity")
                message = offering.get(
                    "message",
                    f"We currently do not have sufficient {instance_type} capacity in the Availability Zone "
                    f"you requested ({zone}).",
                )
                return granted, {"code": code, "message": message}
        return wanted, None


def product(name, price):
    """A type in the price list, as far as anybody reads it."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}, "description": f"${price} per On Demand Linux {name}"}
    return json.dumps({
        "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": name}, "sku": name},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{name}.JRTCKXETXF": {"priceDimensions": {f"{name}.JRTCKXETXF.6YS6EN2CT7": dimension}}}},
    })


def spot_page(prices, parameters):
    """Two of the spot prices that the request's filters match, and where to go on."""
    wanted = {}
    for key, value in parameters.items():
        parts = key.split(".")
        if parts[0] == "Filter" and parts[2] == "Value":
            wanted.setdefault(parameters[f"Filter.{parts[1]}.Name"], set()).add(value)
        if parts[0] == "ProductDescription":
            wanted.setdefault("product-description", set()).add(value)
    fields = {"instance-type": "instance_type", "availability-zone": "zone", "product-description": "product"}
    found = [price for price in prices if all(price[fields[name]] in values for name, values in wanted.items())]
    position = int(parameters.get("NextToken") or 0)
    root = ElementTree.Element(tag("DescribeSpotPriceHistoryResponse"))
    history = ElementTree.SubElement(root, tag("spotPriceHistorySet"))
    names = {
        "instance_type": "instanceType",
        "zone": "availabilityZone",
        "price": "spotPrice",
        "product": "productDescription",
        "at": "timestamp",
    }
    for price in found[position : position + 2]:
        item = ElementTree.SubElement(history, tag("item"))
        for key, name in names.items():
            ElementTree.SubElement(item, tag(name)).text = price[key]
    more = str(position + 2) if position + 2 < len(found) else ""
    ElementTree.SubElement(root, tag("nextToken")).text = more
    return ElementTree.tostring(root, xml_declaration=True, encoding="UTF-8")


def overrides_of(parameters):
    """The overrides of all launch template configs, each as a dict of its fields; one empty override if none."""
    found = {}
    for key, value in parameters.items():
        parts = key.split(".")
        if parts[0] == "LaunchTemplateConfigs" and len(parts) >= 5 and parts[2] == "Overrides":
            found.setdefault((int(parts[1]), int(parts[3])), {})[".".join(parts[4:])] = value
    if not found:
        return [{"_config": 1}]
    return [dict(fields, _config=config) for (config, _), fields in sorted(found.items())]


def with_override(parameters, override, capacity):
    """The same request for one override and a number of instances."""
    config = override["_config"]
    request = {
        key: value
        for key, value in parameters.items()
        if not (key.startswith("LaunchTemplateConfigs.") and ".Overrides." in key) and key != "ClientToken"
    }
    request = {
        key: value
        for key, value in request.items()
        if not key.startswith("LaunchTemplateConfigs.") or key.startswith(f"LaunchTemplateConfigs.{config}.")
    }
    for key, value in override.items():
        if not key.startswith("_"):
            request[f"LaunchTemplateConfigs.{config}.Overrides.1.{key}"] = value
    request["TargetCapacitySpecification.TotalTargetCapacity"] = str(capacity)
    for kind in ("OnDemandTargetCapacity", "SpotTargetCapacity"):
        request.pop(f"TargetCapacitySpecification.{kind}", None)
    return request


def fleet_answer(fleet_id, instances, errors, market):
    root = ElementTree.Element(tag("CreateFleetResponse"))
    ElementTree.SubElement(root, tag("requestId")).text = str(uuid.uuid4())
    ElementTree.SubElement(root, tag("fleetId")).text = fleet_id
    error_set = ElementTree.SubElement(root, tag("errorSet"))
    for problem, override, zone in errors:
        item = ElementTree.SubElement(error_set, tag("item"))
        ElementTree.SubElement(item, tag("errorCode")).text = problem["code"]
        ElementTree.SubElement(item, tag("errorMessage")).text = problem["message"]
        ElementTree.SubElement(item, tag("lifecycle")).text = market
        chosen = ElementTree.SubElement(item, tag("launchTemplateAndOverrides"))
        fields = ElementTree.SubElement(chosen, tag("overrides"))
        for key in ("InstanceType", "SubnetId"):
            if override.get(key):
                ElementTree.SubElement(fields, tag(key[0].lower() + key[1:])).text = override[key]
        if zone:
            ElementTree.SubElement(fields, tag("availabilityZone")).text = zone
    instance_set = ElementTree.SubElement(root, tag("fleetInstanceSet"))
    instance_set.extend(instances)
    return ElementTree.tostring(root, xml_declaration=True, encoding="UTF-8")


if __name__ == "__main__":
    moto = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), Rig(moto), threaded=True, request_handler=MotoRequestHandler)
