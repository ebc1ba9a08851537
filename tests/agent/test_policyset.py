"""Policies of files and of commands together: who owns a name, what survives, what status says."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.agentevents import LOG_NAME
from agent.config import AgentConfig
from agent.policy.api import PolicyName
from agent.policy.errors import InvalidPolicyError
from agent.policyset import PolicyNotFoundError, PolicyNotKeptError, PolicyOwnedByFileError
from tests.agent.agentkit import Agent, config_for, policy_text, running
from tests.kit.wait import eventually_async


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    (tmp_path / "policies").mkdir()
    return config_for(tmp_path, f"--policy-dir={tmp_path / 'policies'}")


def in_force(agent: Agent) -> list[str]:
    return [str(item.policy.name) for item in agent.runtime.sync.engine.repository.policies()]


async def test_imported_policies_survive_a_restart(config: AgentConfig) -> None:
    async with running(config) as agent:
        update, warnings = await agent.runtime.policies.put(policy_text("one") + "---" + policy_text("two"))
        assert update.revision == 2
        assert any("selects no endpoint" in warning for warning in warnings)
    async with running(config) as agent:
        assert in_force(agent) == ["demo/one", "demo/two"]
        await agent.runtime.policies.delete([PolicyName("demo", "one")])
    async with running(config) as agent:
        assert in_force(agent) == ["demo/two"]


async def test_a_text_with_one_bad_policy_imports_none(config: AgentConfig) -> None:
    async with running(config) as agent:
        with pytest.raises(InvalidPolicyError):
            await agent.runtime.policies.put(policy_text("good") + "---\n{}")
        assert in_force(agent) == []


async def test_the_directory_is_watched(config: AgentConfig) -> None:
    assert config.policy_dir is not None
    async with running(config) as agent:
        await agent.runtime.policies.start()
        file = config.policy_dir / "a.yaml"
        file.write_text(policy_text())
        await eventually_async(lambda: in_force(agent) == ["demo/allow-web"], 3)
        file.write_text("{")
        await eventually_async(agent.runtime.policies.errors, 3)
        assert in_force(agent) == ["demo/allow-web"]
        file.unlink()
        await eventually_async(lambda: in_force(agent) == [], 3)
        assert agent.runtime.policies.errors() == []


async def test_a_policy_of_a_file_is_changed_there_and_nowhere_else(config: AgentConfig) -> None:
    assert config.policy_dir is not None
    (config.policy_dir / "a.yaml").write_text(policy_text())
    async with running(config) as agent:
        with pytest.raises(PolicyOwnedByFileError, match=r"demo/allow-web comes from .*a\.yaml"):
            await agent.runtime.policies.put(policy_text())
        with pytest.raises(PolicyOwnedByFileError):
            await agent.runtime.policies.delete([PolicyName("demo", "allow-web")])
        with pytest.raises(PolicyNotFoundError, match="no policy demo/x"):
            await agent.runtime.policies.delete([PolicyName("demo", "x")])


async def test_a_file_beats_an_imported_policy_of_the_same_name_and_says_so(config: AgentConfig) -> None:
    assert config.policy_dir is not None
    async with running(config) as agent:
        await agent.runtime.policies.put(policy_text(peer="imported"))
        await agent.runtime.policies.start()
        file = config.policy_dir / "a.yaml"
        file.write_text(policy_text(peer="file"))
        await eventually_async(agent.runtime.policies.errors, 3)
        (stored,) = agent.runtime.sync.engine.repository.policies()
        assert "file" in stored.policy.document
        assert "is imported too" in agent.runtime.policies.errors()[0]
        file.unlink()
        await eventually_async(lambda: not agent.runtime.policies.errors(), 3)
        (stored,) = agent.runtime.sync.engine.repository.policies()
        assert "imported" in stored.policy.document


async def test_changes_are_agent_events(config: AgentConfig) -> None:
    async with running(config) as agent:
        await agent.runtime.policies.put(policy_text())
        await agent.runtime.policies.delete([PolicyName("demo", "allow-web")])
    lines = (config.paths.flow_dir / LOG_NAME).read_text().splitlines()
    events = [event for line in lines if "POLICY" in (event := json.loads(line))["type"]]
    assert [event["type"] for event in events] == ["POLICY_UPDATED", "POLICY_DELETED"]
    update = events[0]["policy_update"]
    assert (update["revision"], update["ruleCount"]) == ("2", "1")
    assert "k8s:io.cilium.k8s.policy.name=allow-web" in update["labels"]


async def test_a_damaged_imported_policy_is_set_aside_and_reported(config: AgentConfig) -> None:
    async with running(config) as agent:
        await agent.runtime.policies.put(policy_text("good"))
    (config.paths.policy_state_dir / "x__bad.json").write_text("{")
    async with running(config) as agent:
        assert in_force(agent) == ["demo/good"]
        assert "x__bad.json.corrupt" in agent.runtime.policies.errors()[0]


async def test_a_policy_that_cannot_be_kept_is_not_put_in_force(config: AgentConfig) -> None:
    config.paths.policy_state_dir.parent.mkdir(parents=True)
    config.paths.policy_state_dir.write_text("in the way")
    async with running(config, load_policies=False) as agent:
        with pytest.raises(PolicyNotKeptError, match="check the rights of state-dir"):
            await agent.runtime.policies.put(policy_text())
        assert in_force(agent) == []


async def test_imports_at_the_same_time_all_come_in(config: AgentConfig) -> None:
    async with running(config) as agent:
        await asyncio.gather(*(agent.runtime.policies.put(policy_text(f"p{i}")) for i in range(8)))
        assert in_force(agent) == [f"demo/p{i}" for i in range(8)]
        assert agent.runtime.sync.engine.revision == 9
