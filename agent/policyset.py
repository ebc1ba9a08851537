"""Which policies are in force on this node: those of the policy directory and those imported by command.

Keeps imported ones in the state directory, one JSON file each, and watches the directory. A policy that a
file of the directory holds cannot be imported over or deleted: its file is the place to change it. Input:
files, API calls. Output: changes to `PolicySync`, agent events, a status for people.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from agent.agentevents import AgentEventLog
from agent.policy.api import Policy, PolicyName
from agent.policy.engine import PolicyUpdate
from agent.policydir import POLL_S, Parse, PolicyDirectory, PolicyFile
from agent.policysync import PolicySync
from palomar.errors import InvalidInputError, PermanentError, TransientError
from palomar.files import write_atomically
from palomar.tasks import spawn

logger = logging.getLogger(__name__)


class PolicyOwnedByFileError(PermanentError):
    """The policy comes from the policy directory."""

    def __init__(self, name: PolicyName, path: Path) -> None:
        """Name the policy and its file."""
        self.name = name
        self.path = path
        super().__init__(f"policy {name} comes from {path}: change or remove that file")


class PolicyNotFoundError(PermanentError):
    """No imported policy is named like this."""

    def __init__(self, name: PolicyName) -> None:
        """Keep the name."""
        self.name = name
        super().__init__(f"no policy {name}: `palomar policy get` lists those in force")


class PolicyNotKeptError(TransientError):
    """An imported policy cannot be written to the state directory."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the file and the reason."""
        self.path = path
        self.errno = error.errno
        super().__init__(f"{path}: {error.strerror}: make room, or check the rights of state-dir")


class PolicySet:
    """See the module's text. One event loop owns it."""

    def __init__(
        self,
        sync: PolicySync,
        directory: PolicyDirectory | None,
        state_dir: Path,
        parse: Parse,
        events: AgentEventLog,
    ) -> None:
        """Nothing is read before `load`."""
        self.directory = directory
        self._sync = sync
        self._state_dir = state_dir
        self._parse = parse
        self._events = events
        self._imported: dict[PolicyName, Policy] = {}
        self._in_force: dict[PolicyName, Policy] = {}
        self._conflicts: list[str] = []
        self._bad_state: list[str] = []
        self._warned: list[str] = []
        self._warned_at = (0, 0)
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        """How often the directory was looked at."""

    async def load(self) -> None:
        """Read imported policies and the directory, and put them in force."""
        async with self._lock:
            await asyncio.to_thread(self._read_imported)
            if self.directory is not None:
                await asyncio.to_thread(self.directory.scan)
            await self._apply()

    async def start(self) -> None:
        """Begin to watch the directory."""
        if self.directory is not None and self._task is None:
            self._task = spawn(self._watch(self.directory), "watch policy directory")

    async def stop(self) -> None:
        """Stop watching; the policies stay in force."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def put(self, text: str) -> tuple[PolicyUpdate, list[str]]:
        """Import every policy of a YAML or JSON text; return the update, and warnings.

        All or nothing. Raises InvalidPolicyError, PolicyOwnedByFileError, PolicyNotKeptError.
        """
        parsed = self._parse(text)
        async with self._lock:
            for policy in parsed.policies:
                self._check_owner(policy.name)
            for policy in parsed.policies:
                await asyncio.to_thread(self._keep, policy)
                self._imported[policy.name] = policy
            update = await self._apply()
        problems = [*parsed.warnings, *self._sync.engine.warnings(policy.name for policy in parsed.policies)]
        warnings = [str(problem) for problem in problems]
        for warning in warnings:
            logger.warning("policy has a warning", extra={"warning": warning})
        return update, warnings

    async def delete(self, names: Iterable[PolicyName]) -> PolicyUpdate:
        """Remove imported policies; all or nothing. Raises PolicyNotFoundError, PolicyOwnedByFileError."""
        wanted = tuple(dict.fromkeys(names))
        async with self._lock:
            for name in wanted:
                if name not in self._imported:
                    self._check_owner(name)
                    raise PolicyNotFoundError(name)
            for name in wanted:
                del self._imported[name]
                self._path(name).unlink(missing_ok=True)
            return await self._apply()

    def imported(self) -> list[PolicyName]:
        """Names of the imported policies."""
        return sorted(self._imported)

    def files(self) -> list[PolicyFile]:
        """The files of the directory."""
        return list(self.directory.files.values()) if self.directory is not None else []

    def errors(self) -> list[str]:
        """Say which files are not in force as they are, and why."""
        found = [*self._bad_state, *(file.error for file in self.files() if file.error), *self._conflicts]
        if self.directory is not None and self.directory.error:
            found.insert(0, self.directory.error)
        return found

    def warnings(self) -> list[str]:
        """Say what is probably not meant, e.g. selectors that select nothing.

        O(policies x identities) where either changed since the last call.
        """
        engine = self._sync.engine
        version = (engine.revision, len(engine.selectors.identities))
        if self._warned_at != version:
            self._warned = [str(problem) for problem in engine.warnings()]
            self._warned_at = version
        return [warning for file in self.files() for warning in file.warnings] + self._warned

    # --- inside

    async def _watch(self, directory: PolicyDirectory) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            async with self._lock:
                if await asyncio.to_thread(directory.scan):
                    await self._apply()

    async def _apply(self) -> PolicyUpdate:
        wanted = dict(self._imported)
        if self.directory is not None:
            from_files, self._conflicts = self.directory.policies()
            self._conflicts += [
                f"{self.directory.owner(name)}: {name} is imported too; the file's stays in force"
                for name in sorted(from_files.keys() & wanted.keys())
            ]
            wanted |= from_files
        news = {name: policy for name, policy in wanted.items() if self._in_force.get(name) != policy}
        gone = self._in_force.keys() - wanted.keys()
        update = await self._sync.change_policies(news.values(), gone)
        removed = {name: self._in_force[name] for name in gone}
        self._in_force = wanted
        if news:
            self._report(self._events.policy_updated, news.values(), update.revision)
        if removed:
            self._report(self._events.policy_deleted, removed.values(), update.revision)
        if update.names:
            logger.info(
                "policies changed",
                extra={
                    "revision": update.revision,
                    "policies": ",".join(map(str, update.names)),
                    "endpoints": len(update.changed),
                },
            )
        return update

    def _report(
        self, event: Callable[[Iterable[str], int, int], None], policies: Iterable[Policy], revision: int
    ) -> None:
        specs = [spec for policy in policies for spec in policy.specs]
        labels = sorted({label for spec in specs for label in spec.labels})
        event(labels, revision, len(specs))

    def _check_owner(self, name: PolicyName) -> None:
        path = self.directory.owner(name) if self.directory is not None else None
        if path is not None:
            raise PolicyOwnedByFileError(name, path)

    def _path(self, name: PolicyName) -> Path:
        return self._state_dir / f"{quote(name.namespace, safe='')}__{quote(name.name, safe='')}.json"

    def _keep(self, policy: Policy) -> None:
        path = self._path(policy.name)
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(path, policy.document + "\n")
        except OSError as error:
            raise PolicyNotKeptError(path, error) from error

    def _read_imported(self) -> None:
        for path in sorted(self._state_dir.glob("*.json")):
            try:
                parsed = self._parse(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, InvalidInputError) as error:
                aside = path.with_name(path.name + ".corrupt")
                os.replace(path, aside)
                self._bad_state.append(f"imported policy set aside: {aside}: {error}")
                logger.error("imported policy set aside", extra={"path": str(aside), "error": str(error)})
            else:
                self._imported.update({policy.name: policy for policy in parsed.policies})
