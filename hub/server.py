"""Builds every part of a hub, once, opens its doors, and closes them again."""

import asyncio
import gc
import math
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time

from hub.adding import wire
from hub.aggregation.catalogue import algorithm
from hub.companions import as_flags, companion
from hub.config import Settings, resolve
from hub.connections.inbox import Inbox, Left, Stop, Told
from hub.connections.movements import Movements
from hub.connections.roster import Roster
from hub.connections.session import Reception
from hub.coordinator import Coordinator
from hub.events import DiskTrouble, RunStarted
from hub.feed import Feed, Follower
from hub.keys import keep_keys, keys_of
from hub.rules.access import Access
from hub.rules.admission import Gate
from hub.rules.progress import Progress
from hub.runs import Contract, Run, Wishes, ask_app, begin_run, open_run_of, resume_run
from hub.spool import Opening
from hub.views.archive import board_of
from hub.views.banner import banner
from hub.views.board import Board
from hub.views.log import follow_log
from hub.views.metrics import Metrics
from hub.views.page import Page
from hub.views.record import record
from hub.views.screens import Screens
from hub.views.summary import Summary, sum_up
from shared import __version__
from shared.budget import Budget, return_large_memory
from shared.console import say
from shared.disk import Disk, RealDisk
from shared.errors import ConfigError, ExitCode, FedhubError, LinkClosed
from shared.link import Traffic, listen, port_of
from shared.messages import Farewell, Goodbye, Order, Plan, Reply, Welcome
from shared.snapshot import write_tensors
from shared.tensors import ModelSpec, Tensors
from shared.watch import OF_A_HUB, Limits

_SERVICE_RESTART, _NORMAL = 1012, 1000


@dataclass(frozen=True)
class Ended:
    """How a run ended, for now or for good."""

    code: ExitCode
    stopped: bool
    run: Run
    plan: Plan
    summary: Summary


class Hub:
    """One hub, from opening to closing."""

    def __init__(
        self,
        wishes: Wishes,
        *,
        ask: Callable[[Wishes], Awaitable[Contract]] = ask_app,
        disk: Disk | None = None,
        now: Callable[[], float] = time,
        limits: Limits = OF_A_HUB,
    ) -> None:
        """Get ready.

        Args:
            wishes: what is wanted; their layers say where to listen.
            ask: finds out what the app brings.
            disk: where runs are kept.
            now: gives the time that facts are stamped with, in seconds since 1970.
            limits: what is borne from an edge.

        Raises:
            ConfigError: a setting is impossible.
        """
        loop = asyncio.get_running_loop()
        self._wishes = wishes
        self._ask = ask
        self._doors = resolve(*wishes.layers).settings
        algorithm(self._doors.algorithm, self._doors)  # a mistake in it is told before the app is asked for its model
        self._clock = loop.time
        self._disk = disk or RealDisk()
        self._limits = limits
        self.budget = Budget(self._doors.upload_budget * 2**20)
        self._now = now
        self.feed = Feed(now)
        self.url: asyncio.Future[str] = loop.create_future()
        """Where the hub listens, once it does."""
        self.roster = Roster()
        self.access = access_of(self._doors)
        """Who may come in."""
        self._inbox = Inbox(self._clock)
        self._movements = Movements(self.feed, self._clock)
        self._screens = Screens(command=self._command, newest=self._newest, now=now)
        self._metrics = Metrics(self._screens.board)
        self._page = Page(self.access, metrics=lambda: self._metrics.page(), health=self._health)
        self._run: Run | None = None
        self._coordinator: Coordinator | None = None
        self._traffic = Traffic()
        self._welcome: asyncio.Future[Callable[[int], Welcome]] = loop.create_future()
        self._life: asyncio.Task[Ended] | None = None
        self._playing = False
        self._failure: FedhubError | None = None

    async def serve(self) -> Ended | None:
        """Open the doors, play the run, close the doors. None if it was stopped before the run began.

        Raises:
            ConfigError: something the operator chose cannot be.
            JournalError: the disk fails.
            FedhubError: the swarm beside the hub failed.
        """
        self._life = asyncio.create_task(self._serve())
        try:
            return await self._life
        except asyncio.CancelledError:
            if self._failure:
                raise self._failure from None
            return None

    def stop(self) -> None:
        """Close or abandon the open round, save, say goodbye, and end."""
        if self._playing:
            self._inbox.post(Stop(self._clock()))
        elif self._life:
            self._life.cancel()

    def _command(self, order: Order, reply: Callable[[Reply], None]) -> None:
        """Have an order from a page or a terminal carried out."""
        if self._playing and not self._inbox.closed:
            self._inbox.post(Told(order, reply, self._clock()))
        elif order.action == "stop" and not self._playing:
            reply(Reply(done=True, reason=""))
            self.stop()
        else:
            reply(Reply(done=False, reason="no run is under way"))

    def _newest(self) -> tuple[int, Tensors] | None:
        """Give the newest model and its round; for a thread, as files may have to be read."""
        if not (self._coordinator and self._run):
            return None
        newest = self._coordinator.newest  # the next one may come in between
        return newest.number, self._run.whole(newest.model)

    async def _serve(self) -> Ended:
        return_large_memory()
        wishes = self._wishes
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(self._doors_open())
            if wishes.swarm:
                arguments = [part.format(url=url) for part in wishes.swarm]
                await stack.enter_async_context(companion(*arguments, key=self.access.keys.guest, failed=self._fail))
            contract = await self._ask(wishes) if wishes.app else None
            run = self._run = await stack.enter_async_context(self._open_run(contract))
            del contract  # and with it the first model
            coordinator = self._coordinator = self._coordinator_of(run)
            measured_here = run.has_test and not run.algorithm.personal
            coordinator.evaluator_expected = bool(wishes.swarm) and measured_here  # one phone of the demo measures
            if wishes.evaluator and measured_here and not coordinator.over:
                # A name of its own: the evaluator of a hub that crashed may still be looking for it.
                name = f"evaluator-{secrets.token_hex(2)}"
                arguments = ["join", url, run.app, "--evaluator", "--name", name, "--patience", "20", "--quiet"]
                arguments += as_flags(run.options)
                coordinator.evaluator_expected = True

                def without(failure: FedhubError) -> None:
                    say(f"the evaluator beside the hub ended: {failure}")
                    coordinator.evaluator_expected = False
                    self._inbox.post(Left(name, self._clock()))  # have the coordinator look again

                await stack.enter_async_context(companion(*arguments, key=self.access.keys.guest, failed=without))
            return await self._play(run, coordinator)

    @asynccontextmanager
    async def _doors_open(self) -> AsyncIterator[str]:
        """Accept connections; give the hub's URL. Whoever comes before there is a model waits for its welcome."""
        reception = Reception(
            welcome=self._welcome_for,
            roster=self.roster,
            inbox=self._inbox,
            feed=self.feed,
            movements=self._movements,
            access=self.access,
            show=self._screens.show,
            clock=self._clock,
        )
        server = await listen(
            reception.receive,
            host=self._doors.address,
            port=self._doors.port,
            traffic=self._traffic,
            budget=self.budget,
            limits=self._limits,
            answer=self._page.answer,
        )
        self.access.keys = keep_keys(Path(self._doors.runs), self.access.keys)
        url = f"ws://{reachable(self._doors.address)}:{port_of(server)}"
        say(f"fedhub {__version__} · listening on {url}")
        self.url.set_result(url)
        try:
            yield url
        finally:
            if not self._welcome.done():  # nobody who still waits for it will get one
                self._welcome.set_exception(LinkClosed(_SERVICE_RESTART, "the hub has stopped"))
                self._welcome.exception()  # it may be that nobody waits: asyncio shall not complain of that
            server.close(code=_SERVICE_RESTART, reason="the hub has stopped")
            await server.wait_closed()
            gc.unfreeze()  # see Reception

    def _open_run(self, contract: Contract | None) -> AbstractAsyncContextManager[Run]:
        wishes = self._wishes
        folder = wishes.resume or open_run_of(self._doors)
        if folder:
            return resume_run(wishes, folder, contract, disk=self._disk, trouble=self._trouble)
        assert contract is not None, "a new run needs an app"
        return begin_run(wishes, contract, disk=self._disk, trouble=self._trouble)

    def _trouble(self, reason: str) -> None:
        self.feed.publish(DiskTrouble(reason=reason))

    def _coordinator_of(self, run: Run) -> Coordinator:
        settings, start = run.settings, run.take_start()
        plan = Plan(
            local=run.algorithm.local,
            epochs=settings.epochs,
            batch=settings.batch,
            lr=settings.lr,
            seed=settings.seed,
            holdout=settings.holdout,
            settings=dict(run.algorithm.settings),
        )
        averaged = run.exchange.of("average")
        spec = ModelSpec.of(wire(run.algorithm, start.newest, averaged))
        return Coordinator(
            run=run.id,
            settings=settings,
            plan=plan,
            algorithm=run.algorithm,
            averaged=averaged,
            gate=Gate(run.id, spec, settings.max_examples, run.algorithm.asks),
            progress=_progress(run),
            newest=start.newest,
            reopened=start.open if start.open and _same_terms(start.open.opening, run, plan) else None,
            roster=self.roster,
            inbox=self._inbox,
            movements=self._movements,
            feed=self.feed,
            journal=run.journal,
            traffic=self._traffic,
            clock=self._clock,
            counted=start.counted,
        )

    async def _play(self, run: Run, coordinator: Coordinator) -> Ended:
        """Play the run's rounds while the views follow, keep the final model, and say goodbye to everybody."""
        settings, name, on_wire = run.settings, coordinator.algorithm.name, coordinator.gate.spec.tensors
        spec = ModelSpec.of(coordinator.newest.model)
        averaged = tuple(place for place, one in enumerate(on_wire) if one.name in coordinator.averaged)

        def welcome(version: int) -> Welcome:
            return Welcome(
                version=version,
                run=run.id,
                algorithm=name,
                spec=on_wire,
                options=run.options,
                plan=coordinator.plan,
                round=coordinator.newest.number,
                rounds=settings.rounds,
                model=coordinator.newest.sha256,
                carried=len(on_wire) - len(spec.tensors),
                averaged=averaged,
                own=tuple(sorted(run.exchange.of("own"))),
                frozen=run.frozen,
            )

        app = self._wishes.app or run.app
        for line in banner(await self.url, self.access, page=self._page.built, runs=self._doors.runs, join=app):
            say(line)
        goal, needs = max(1, math.ceil(settings.fraction * settings.wait_for)), run.algorithm.needs
        if settings.wait_for > 1 and goal < needs:
            say(
                f"{name} keeps its promise with {needs} updates or more in a round, and {goal} are asked for: "
                "with fewer, fewer hostile edges are withstood"
            )
        summary, board = Summary(), await asyncio.to_thread(_board_of, run.folder)
        async with self._views(settings, run.folder, summary, board):
            self.feed.publish(
                RunStarted(
                    run=run.id,
                    name=run.folder.name,
                    algorithm=name,
                    parameters=spec.parameters,
                    model_bytes=spec.nbytes,
                    model=coordinator.newest.sha256,
                    round=coordinator.newest.number,
                    rounds=settings.rounds,
                    metric=settings.metric,
                    deadline=settings.deadline,
                )
            )
            self._playing = True
            self._welcome.set_result(welcome)
            try:
                code = await coordinator.play()
            finally:
                self._inbox.close()
            final = run.folder / "model.safetensors"
            newest = coordinator.newest.model
            await asyncio.to_thread(lambda: write_tensors(final, run.whole(newest), self._disk))
            failed = f": {coordinator.reason}" if code is not ExitCode.DONE else ""
            await self._say_goodbye(coming_back=coordinator.stopping or bool(failed), why=failed)
        if self._failure:
            raise self._failure
        return Ended(code, coordinator.stopping, run, coordinator.plan, summary)

    async def _welcome_for(self, version: int) -> Welcome:
        return (await asyncio.shield(self._welcome))(version)

    @asynccontextmanager
    async def _views(self, settings: Settings, folder: Path, summary: Summary, board: Board) -> AsyncIterator[None]:
        """Have the views follow the feed; they get everything to its end."""
        self._metrics = Metrics(board)
        told = []
        if settings.trackers:
            from hub.views.trackers import trackers

            told = trackers(settings.trackers, folder)
        follow: Callable[[], Follower] = lambda: self.feed.follow(recent=True, room=100_000)  # noqa: E731
        views = [
            asyncio.create_task(follow_log(follow(), settings.log)),
            asyncio.create_task(record(follow(), folder / "events.jsonl")),
            asyncio.create_task(sum_up(follow(), summary)),
            asyncio.create_task(self._screens.follow(follow(), board, self._metrics.take)),
            *(asyncio.create_task(tell(follow())) for tell in told),
        ]
        # A simulation has no lag, and must see when nobody waits for anything any more.
        lag = [asyncio.create_task(self._metrics.watch_loop())] if self._now is time else []
        try:
            yield
        finally:
            self.feed.close()
            for task in lag:
                task.cancel()
            await asyncio.gather(*lag, return_exceptions=True)
            await asyncio.gather(*views)

    def _health(self) -> dict[str, object]:
        head = self._screens.board.state.head
        return {"run": head.run, "round": head.committed, "phase": head.phase}

    async def _say_goodbye(self, *, coming_back: bool, why: str) -> None:
        code, close = (Farewell.RESTARTING, _SERVICE_RESTART) if coming_back else (Farewell.DONE, _NORMAL)
        reason = f"the hub has stopped{why}" if coming_back else "the run is over"
        goodbye = Goodbye(code=code, reason=reason)
        await asyncio.gather(*(session.dismiss(goodbye, close) for session in self.roster.everyone()))

    def _fail(self, failure: FedhubError) -> None:
        """End because the hub is pointless without what failed."""
        self._failure = failure
        if self._coordinator:
            self._coordinator.why_stopping = "stopped because of a failure beside the hub"
        self.stop()


def _same_terms(opening: Opening, run: Run, plan: Plan) -> bool:
    """Tell whether a round was asked as it would be now; if not, what came in does not fit, and it is asked again."""
    return opening.plan == plan and opening.algorithm == run.algorithm.name and run.settings.durability == "update"


def _progress(run: Run) -> Progress:
    settings = run.settings
    progress = Progress(settings.rounds, settings.metric, settings.target, settings.patience)
    for number, metrics in sorted(run.evaluations.items()):
        progress.note(number, metrics)
    return progress


def _board_of(folder: Path) -> Board:
    """Give the board as it was when the hub stopped; an empty one for a new run, or if its events cannot be read."""
    try:
        return board_of(folder)
    except ConfigError:
        return Board()


def access_of(settings: Settings) -> Access:
    """Tell who may come in where these settings have the hub listen."""
    address = settings.address
    names = {name.strip().lower() for name in settings.hosts.split(",") if name.strip()}
    return Access(
        keys_of(Path(settings.runs)),
        open=address not in ("127.0.0.1", "::1", "localhost"),
        names=frozenset(names | {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}),
    )


def reachable(host: str) -> str:
    """Give the address under which others reach a hub that listens on `host`."""
    if host not in ("0.0.0.0", "::", ""):  # compared with, not bound to
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the system only picks the address it would send from
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
