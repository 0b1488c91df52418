"""A model that is there and not deployed, or is being deployed by something else."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import JobFailedError, RequestRefusedError, UnavailableError
from overnight.services.ml_commons.models import DEPLOY_TRIES, REGISTERED_LOOKS, ensure_model
from overnight.transport.http import HttpCall
from unit.services.answers import Service

MODEL = {"_id": "model-1", "_source": {"connector_id": "connector-1", "model_state": "REGISTERED"}}


class Cluster:
    """A cluster whose model passes through ``states``, the last of them for good, and counts its deployments."""

    def __init__(self, *states: str, deploy: RequestRefusedError | str = "COMPLETED") -> None:
        self.states = list(states)
        self.deploy = deploy
        self.deployments = 0
        self.undeployed = 0
        self.is_stuck = False

    def __call__(self, call: HttpCall) -> Any:
        match call.method, call.path.removeprefix("_plugins/_ml/").split("/"):
            case "POST", ["models", "_search"]:
                return {"hits": {"hits": [MODEL]}}
            case "POST", ["models", _, "_deploy"]:
                self.deployments += 1
                if isinstance(self.deploy, RequestRefusedError):
                    raise self.deploy
                return {"task_id": "task-1", "status": "CREATED"}
            case "POST", ["models", _, "_undeploy"]:
                self.undeployed += 1
                if self.is_stuck:
                    self.states, self.deploy = ["UNDEPLOYED", "DEPLOYED"], "COMPLETED"
                return {}
            case "GET", ["tasks", "task-1"]:
                return {"state": self.deploy, "task_type": "DEPLOY_MODEL", "error": "Duplicate deploy model task"}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"name": "m", "model_state": state}

    def ensure_model(self) -> Any:
        return Service(self).run(ensure_model("m", "connector-1"))


def test_one_that_is_deployed_is_left_alone() -> None:
    cluster = Cluster("DEPLOYED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 0


@pytest.mark.parametrize("states", [("DEPLOYING",), ("REGISTERED",), ("REGISTERED", "DEPLOYING"), ("REGISTERING",)])
def test_a_deployment_under_way_is_waited_for(states: tuple[str, ...]) -> None:
    cluster = Cluster(*states, "DEPLOYED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 0


@pytest.mark.parametrize("state", ["UNDEPLOYED", "DEPLOY_FAILED"])
def test_one_that_nothing_deploys_is_deployed(state: str) -> None:
    cluster = Cluster(state, "DEPLOYED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 1


def test_one_that_stays_registered_is_deployed() -> None:
    cluster = Cluster(*["REGISTERED"] * (REGISTERED_LOOKS + 1), "DEPLOYED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 1


def test_two_deployments_that_spoil_each_other_are_tried_again() -> None:
    cluster = Cluster("UNDEPLOYED", "DEPLOY_FAILED", "DEPLOYED", deploy="COMPLETED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 2
    cluster = Cluster("UNDEPLOYED", "DEPLOYED", deploy="FAILED")
    assert cluster.ensure_model() == "model-1"
    assert cluster.deployments == 1


def test_one_that_a_node_takes_for_being_deployed_for_ever_is_undeployed_first() -> None:
    cluster = Cluster("DEPLOY_FAILED", deploy="FAILED")
    cluster.is_stuck = True
    assert cluster.ensure_model() == "model-1"
    assert (cluster.deployments, cluster.undeployed) == (2, 1)


def test_one_that_another_deployment_finishes_is_not_undeployed() -> None:
    cluster = Cluster("UNDEPLOYED", "DEPLOY_FAILED", "DEPLOYED", deploy="FAILED")
    assert cluster.ensure_model() == "model-1"
    assert (cluster.deployments, cluster.undeployed) == (1, 0)


def test_one_whose_deployment_fails_each_time_is_reported_with_the_reason() -> None:
    cluster = Cluster("UNDEPLOYED", "DEPLOY_FAILED", deploy="FAILED")
    with pytest.raises(JobFailedError, match="Duplicate deploy model task"):
        cluster.ensure_model()
    assert cluster.deployments == DEPLOY_TRIES
    with pytest.raises(JobFailedError, match="is DEPLOY_FAILED; the log"):
        Cluster("DEPLOY_FAILED").ensure_model()


def test_one_that_is_never_deployed_can_be_tried_again_later() -> None:
    with pytest.raises(UnavailableError, match="still DEPLOYING"):
        Cluster("DEPLOYING").ensure_model()


def test_one_that_something_else_is_deploying_is_waited_for() -> None:
    refused = RequestRefusedError("Document version conflict updating model-1", status=409)
    assert Cluster("UNDEPLOYED", "DEPLOYED", deploy=refused).ensure_model() == "model-1"


def test_one_that_cannot_be_deployed_is_not_waited_for() -> None:
    with pytest.raises(RequestRefusedError, match="eligible"):
        Cluster("UNDEPLOYED", deploy=RequestRefusedError("No node is eligible", status=400)).ensure_model()
