"""The policies of packaging/iam: each statement allows what the programs ask for and refuses what is next to it."""

import copy
import json
import re
import subprocess
from pathlib import Path

import botocore.session
from botocore import xform_name

from policies import ACCOUNT, ROLES, documents
from cases import CASES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = documents()


def role_of(document: str) -> str:
    return next(role for role, has in ROLES.items() if document in has)


def question(policies: dict, role: str, request) -> dict:
    return {
        "policies": policies,
        "request": {
            "action": request.action,
            "resource": {"resource": request.resource, "accountId": ACCOUNT},
            "principal": f"arn:aws:sts::{ACCOUNT}:assumed-role/demo-{role}/i-0aaaaaaaaaaaaaaa1",
            "contextVariables": request.context,
        },
    }


def simulate(questions: list, rig: Path) -> list:
    # The simulator knows no key of an encryption context, whose name is free after the colon; a tag's, which is free after the
    # slash, is compared in the same way.
    text = json.dumps(questions).replace("kms:EncryptionContext:smartscale:", "aws:RequestTag/smartscale-")
    asked = subprocess.run(
        ["node", Path(__file__).with_name("simulate.mjs"), rig / "infrastructure"],
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def of_role(role: str, documents: dict = DOCUMENTS) -> dict:
    return {name: documents[name] for name in ROLES[role]}


def statements():
    for document, cases in CASES.items():
        for sid, case in cases.items():
            yield document, sid, case


def test_every_statement_has_its_cases_and_every_case_its_statement():
    written = {
        (name, statement["Sid"])
        for name, document in DOCUMENTS.items()
        for statement in document["Statement"]
    }
    assert {(document, sid) for document, sid, _ in statements()} == written
    assert sorted(name for has in ROLES.values() for name in has) == sorted(DOCUMENTS)


def test_every_statement_allows_what_it_is_for(rig):
    asked = [
        (document, sid, request) for document, sid, case in statements() for request in case.allowed
    ]
    answers = simulate(
        [question(of_role(role_of(document)), role_of(document), request) for document, _, request in asked],
        rig,
    )
    for (document, sid, request), answer in zip(asked, answers, strict=True):
        assert answer["result"] == "Allowed", (document, sid, request)
        assert set(answer["statements"]) == {sid}, (document, sid, request, answer)
        assert not answer["ignored"], (document, sid, request, answer)


def test_every_action_of_a_statement_is_asked_for():
    for document, sid, case in statements():
        statement = next(one for one in DOCUMENTS[document]["Statement"] if one["Sid"] == sid)
        actions = statement["Action"]
        written = {actions} if isinstance(actions, str) else set(actions)
        assert {request.action for request in case.allowed} == written, (document, sid)
        assert not any("*" in action for action in written), (document, sid)


def test_what_lies_next_to_it_is_refused(rig):
    asked = [
        (document, sid, request) for document, sid, case in statements() for request in case.refused
    ]
    answers = simulate(
        [question(of_role(role_of(document)), role_of(document), request) for document, _, request in asked],
        rig,
    )
    for (document, sid, request), answer in zip(asked, answers, strict=True):
        assert answer["result"] == "ImplicitlyDenied", (document, sid, request)


def test_a_worker_may_nothing_of_what_the_server_may(rig):
    asked = [
        request
        for document, _, case in statements()
        if role_of(document) == "server"
        for request in case.allowed
    ]
    answers = simulate([question(of_role("worker"), "worker", request) for request in asked], rig)
    for request, answer in zip(asked, answers, strict=True):
        assert answer["result"] == "ImplicitlyDenied", request


def wider(statement: dict):
    """The statement without one of its bounds, and which one that was."""
    if statement["Resource"] != "*":
        resources = statement["Resource"]
        resources = [resources] if isinstance(resources, str) else resources
        # Every one of a list widened by itself: its kind of resource stays.
        for index, resource in enumerate(resources):
            open_one = re.sub(r"[^:/]+$", "*", resource)
            if open_one != resource:
                widened = copy.deepcopy(statement)
                widened["Resource"] = [*resources[:index], open_one, *resources[index + 1 :]]
                yield f"{resource} as {open_one}", widened
        widened = copy.deepcopy(statement)
        widened["Resource"] = "*"
        yield "any resource", widened
    for operator, keys in statement.get("Condition", {}).items():
        for key in keys:
            widened = copy.deepcopy(statement)
            del widened["Condition"][operator][key]
            if not widened["Condition"][operator]:
                del widened["Condition"][operator]
            yield f"no {operator} of {key}", widened


def test_no_bound_of_a_statement_could_be_left_out_unseen(rig):
    """Each bound of each statement is taken away in turn: one of the requests above has to be allowed then."""
    mutants, questions = [], []
    for document, sid, case in statements():
        role = role_of(document)
        for what, widened in wider(
            next(one for one in DOCUMENTS[document]["Statement"] if one["Sid"] == sid)
        ):
            changed = copy.deepcopy(DOCUMENTS)
            changed[document]["Statement"] = [
                widened if one["Sid"] == sid else one for one in changed[document]["Statement"]
            ]
            mutants.append((document, sid, what, len(case.refused)))
            questions += [question(of_role(role, changed), role, request) for request in case.refused]
    assert len(mutants) > 30
    answers = iter(simulate(questions, rig))
    unseen = [
        (document, sid, what)
        for document, sid, what, count in mutants
        if not any([next(answers)["result"] == "Allowed" for _ in range(count)])
    ]
    assert not unseen


# What the coordinator calls in tests alone: the table is made by packaging/cloudformation.
ONLY_IN_TESTS = {"CreateTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"}
# KMS seals where a person runs `init` or `ca`, with that person's rights.
BY_PEOPLE = {"Encrypt"}
# A transaction has no action of its own: each of its parts has.
TRANSACTION = {"TransactWriteItems": {"ConditionCheckItem", "DeleteItem", "UpdateItem"}}
# AWS asks for these when it carries out CreateFleet.
BY_FLEET = {"RunInstances", "CreateTags", "PassRole"}


def called_by(folder: Path, services: list) -> set:
    """The operations of these services that the sources below a folder call."""
    sources = "\n".join(path.read_text() for path in folder.rglob("*.rs"))
    session = botocore.session.get_session()
    names = {
        name for service in services for name in session.get_service_model(service).operation_names
    }
    return {name for name in names if re.search(rf"\.{xform_name(name)}\(\)\s*[.;\n]", sources)}


def test_the_coordinator_may_call_what_its_sources_call_and_nothing_else():
    services = ["ec2", "pricing", "dynamodb", "sns", "sqs", "cloudwatch", "logs", "kms"]
    called = called_by(ROOT / "coordinator/src/aws", services) - ONLY_IN_TESTS - BY_PEOPLE
    for name, parts in TRANSACTION.items():
        assert name in called
        called = called - {name} | parts
    # A batch is allowed by the action of one.
    called = {name.removesuffix("Batch") for name in called}
    granted = {
        action.split(":")[1]
        for name in ["coordinator", "coordinator-sealed-authority"]
        for statement in DOCUMENTS[name]["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    assert granted == called | BY_FLEET


def test_a_worker_may_call_what_its_sources_call_and_nothing_else():
    called = called_by(ROOT / "agent/src", ["secretsmanager"])
    granted = {statement["Action"].split(":")[1] for statement in DOCUMENTS["worker"]["Statement"]}
    assert granted == called
