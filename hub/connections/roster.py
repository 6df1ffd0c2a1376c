"""Who is here: one session for each edge, where a returning edge takes the place of its old connection."""

import asyncio
from collections import Counter
from typing import Protocol

from shared.codec import Frame
from shared.messages import Evaluate, Farewell, Goodbye, Message, Role, Train

_POLICY = 1008  # close code


class Broadcast:
    """A task for many edges, encoded once: with the model, and without it for edges that still hold it."""

    def __init__(self, task: Train | Evaluate, *, full: Frame, light: Frame) -> None:
        self.task = task
        self.full = full
        self.light = light


class Session(Protocol):
    """One edge's stay, as the roster knows it."""

    @property
    def edge(self) -> str: ...

    @property
    def role(self) -> Role: ...

    @property
    def examples(self) -> int:
        """How many examples the edge said it has, on joining."""
        ...

    def offer(self, task: Broadcast) -> None:
        """Send `task` when the line is free, in place of an older one that has not gone out."""
        ...

    def say(self, message: Message) -> None:
        """Send a small message, in order, when the line is free."""
        ...

    def cut(self) -> None:
        """Cut the connection at once, without a word."""
        ...

    async def dismiss(self, goodbye: Goodbye, code: int) -> None:
        """Say goodbye and close, within seconds."""
        ...


class Roster:
    """The sessions of all edges that are ready, by edge id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._counts: Counter[Role] = Counter()
        self._last_words: dict[str, Message] = {}
        self.else_say: Message | None = None
        """What whoever comes is told for whom there are no last words."""
        self._farewells: set[asyncio.Task[None]] = set()

    def add(self, session: Session) -> Session | None:
        """Take in a session; give back the one whose place it takes, if any."""
        replaced = self._sessions.pop(session.edge, None)
        if replaced:
            self._counts[replaced.role] -= 1
        self._counts[session.role] += 1
        self._sessions[session.edge] = session
        if session.role is Role.TRAINER and (last := self._last_words.get(session.edge, self.else_say)):
            session.say(last)
        return replaced

    def remove(self, session: Session) -> bool:
        """Take out a session; tell whether it was still the edge's present one."""
        if self._sessions.get(session.edge) is not session:
            return False
        del self._sessions[session.edge]
        self._counts[session.role] -= 1
        return True

    def count(self, role: Role) -> int:
        """Tell how many are here in this role; asked at each coming and going, so it must not look at everybody."""
        return self._counts[role]

    def ids(self, role: Role) -> list[str]:
        """List who is here in this role, in alphabetical order."""
        return sorted(edge for edge, session in self._sessions.items() if session.role is role)

    def examples(self, edge: str) -> int:
        """Tell how many examples an edge said it has; 0 if it is not here."""
        session = self._sessions.get(edge)
        return session.examples if session else 0

    def offer(self, edge: str, task: Broadcast) -> None:
        """Give an edge a task, if it is here."""
        if session := self._sessions.get(edge):
            session.offer(task)

    def say(self, edge: str, message: Message) -> None:
        """Send an edge a small message, if it is here."""
        if session := self._sessions.get(edge):
            session.say(message)

    def impress(self, edge: str, message: Message) -> None:
        """Send an edge a small message, and again when it comes back, before any task: it must not miss it.

        A later one takes its place.
        """
        self._last_words[edge] = message
        self.say(edge, message)

    def cut(self, edge: str) -> None:
        """Cut an edge's connection, if it is here."""
        if session := self._sessions.get(edge):
            session.cut()

    def send_away(self, session: Session, code: Farewell, reason: str) -> None:
        """Say goodbye to an edge that is not wanted any more; nobody waits for how it takes that."""
        farewell = asyncio.create_task(session.dismiss(Goodbye(code=code, reason=reason), _POLICY))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    def get(self, edge: str) -> Session | None:
        """Give an edge's session, if it is here."""
        return self._sessions.get(edge)

    def everyone(self) -> list[Session]:
        """List all sessions."""
        return list(self._sessions.values())
