"""A thread beside the event loop, for what must not depend on it: an agent that blocks it, and signals meanwhile.

    loop blocked for ``BLOCKED_SECONDS``     told once a spell: log, metric, trace
    and the rollout's limit or the drain over     ``RunInterrupted`` is raised in the agent's code; the others go on
    a second signal, and nobody heeds it     the process ends, also where the loop blocks while it heeds it
    drain and flush over, and still blocked  the process ends

Raising is done by a handler of ``INTERRUPT`` in the main thread, and only where the innermost code that is no library's
is the agent's: neither the SDK nor another rollout is ever interrupted half-way. That signal has two senders: this
thread, and a timer of CPU time, which runs out again and again where C code keeps the interpreter to itself: then this
thread gets a turn only while a handler runs, if at all, and any step of it may be the one that it does not come out of.
Where the loop is not in the main thread, nothing can be interrupted: log and metric are left. The end of the process
costs nothing that is on record; the next one reports what ran.
"""

import asyncio
import contextvars
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from osmosis_ai.rollout.core.loop_blocks import CURRENT_RUN, LoopBlock, WatchedRun
from osmosis_ai.rollout.core.results import Stop
from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.observe.looplag import INTERVAL_SECONDS, LoopLag
from osmosis_ai.rollout.server.frames import Place, below_the_loop, place_above
from osmosis_ai.rollout.server.process import end_process
from osmosis_ai.rollout.server.signals import Heard

logger = logging.getLogger(__name__)

BLOCKED_SECONDS = 1.0
NOTED_SECONDS = 1.0
"""How long the log waits for a note, which may go to a file."""
PROBE_SECONDS = 0.5
"""Between two looks at who blocks; each interrupts a system call."""
HEED_SECONDS = 1.0
"""How long a second signal waits for the event loop."""
END_MARGIN_SECONDS = 3.0
"""Beyond drain and flush, before a process ends whose event loop is blocked."""
KEPT_CPU_SECONDS = 1.0
"""CPU time without a turn for this thread, after which the timer stands in for it."""

INTERRUPT: int | None = getattr(signal, "SIGVTALRM", None)


@dataclass(eq=False)
class _Spell:
    """One time that the loop is blocked; what a probe finds is put in by the handler, in the main thread."""

    probed_at: float
    seconds: float
    place: Place | None
    told: bool = False
    run: WatchedRun | None = None
    """At the last probe; another one may block on where the first has ended."""
    seen_run: WatchedRun | None = None
    seen_at_seconds: float = 0.0
    """Into the spell, when ``seen_run`` was first at it; 0 for the first of all."""
    noted_run: WatchedRun | None = None
    block: LoopBlock | None = None
    context: contextvars.Context = field(default_factory=contextvars.Context)


class EndingSignals(Protocol):
    """What is asked of a ``DrainOnSignal``."""

    heard_outside: Heard
    forced: bool

    @property
    def numbers(self) -> set[int]:
        """The signals that start a drain."""

    @property
    def first_at(self) -> float | None:
        """When the drain was asked for (``time.monotonic``)."""

    @property
    def second_at(self) -> float | None:
        """When it was asked not to wait for the drain."""


class Watchdog:
    """Watches the running event loop until ``stop``; to be made in it."""

    def __init__(self, lag: LoopLag, signals: EndingSignals, limits: RolloutServerSettings, observer: Observer) -> None:
        self._lag = lag
        self._signals = signals
        self._limits = limits
        self._observer = observer
        self._loop_thread = threading.get_ident()
        self._base: FrameType | None = None
        self._spell: _Spell | None = None
        self._stopped = False
        self._in_main = threading.current_thread() is threading.main_thread()
        self._interrupts = self._in_main and INTERRUPT is not None and signal.getsignal(INTERRUPT) is signal.SIG_DFL
        if self._interrupts:
            signal.signal(INTERRUPT, self._on_interrupt)  # type: ignore[arg-type]
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._forward_to = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False) if self._in_main else -1
        asyncio.get_running_loop().call_soon(self._find_base)
        self._thread = threading.Thread(target=self._watch, name="osmosis-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give everything back; the signals' own handlers remain."""
        self._stopped = True
        if self._in_main:
            ours = signal.set_wakeup_fd(self._forward_to)
            if ours != self._writer:  # somebody has put another in its place since
                signal.set_wakeup_fd(ours)
        os.write(self._writer, b"\0")
        self._thread.join()
        if self._interrupts:
            # First: without a handler it would end the process.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(INTERRUPT, signal.SIG_DFL)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)
        self._base = self._spell = None

    def _find_base(self) -> None:
        self._base = below_the_loop(sys._getframe())

    def _watch(self) -> None:
        awaited = select.poll()
        awaited.register(self._reader, select.POLLIN)
        before = time.monotonic()
        while not self._stopped:
            if self._interrupts:
                signal.setitimer(signal.ITIMER_VIRTUAL, KEPT_CPU_SECONDS, KEPT_CPU_SECONDS)
            if awaited.poll(INTERVAL_SECONDS * 1000):
                self._hear(os.read(self._reader, 4096))
            now = time.monotonic()
            self._end_if_due(now)
            # A process that was stopped as a whole, or starved: nobody in it has had the time to be on time.
            if now - before < BLOCKED_SECONDS:
                self._look(now)
            before = now

    def _hear(self, numbers: bytes) -> None:
        for number in numbers:
            if number in self._signals.numbers:
                self._signals.heard_outside.note(number)
        if self._forward_to != -1 and not self._stopped:
            try:
                os.write(self._forward_to, numbers)
            except OSError as error:  # full: the loop has enough to wake up for
                logger.debug("A signal is not passed on: %s", error)

    def _end_if_due(self, now: float) -> None:
        """Runs in the thread or, where that gets no turn, in the handler."""
        second_at, first_at = self._signals.second_at, self._signals.first_at
        is_blocked = self._lag.overdue_seconds >= BLOCKED_SECONDS
        if second_at is not None and now - second_at >= HEED_SECONDS and (is_blocked or not self._signals.forced):
            end_process(
                1, "Second signal, which the event loop does not heed: ending; the journal has what was running."
            )
        bound = self._limits.drain_seconds + self._limits.flush_seconds + END_MARGIN_SECONDS
        if first_at is not None and now - first_at >= bound and is_blocked:
            end_process(1, "The event loop is blocked beyond the drain: ending; the journal has what was running.")

    def _look(self, now: float) -> None:
        blocked_seconds = self._lag.overdue_seconds
        spell = self._spell
        if blocked_seconds < BLOCKED_SECONDS:
            self._spell = None
        elif spell is None:
            place = place_above(self._base, sys._current_frames().get(self._loop_thread))
            self._spell = _Spell(now, blocked_seconds, place)
            self._probe()
        else:
            spell.seconds = blocked_seconds
            if spell.run is not spell.seen_run:
                spell.seen_at_seconds = 0.0 if spell.seen_run is None else blocked_seconds
                spell.seen_run = spell.run
            own_seconds = blocked_seconds - spell.seen_at_seconds
            if spell.run is spell.noted_run:
                if spell.block is not None:
                    spell.block.seconds = round(own_seconds, 3)
            elif spell.told and own_seconds >= BLOCKED_SECONDS:  # many short ones in a row are nobody's fault alone
                self._note(spell)
            if now - spell.probed_at >= PROBE_SECONDS:
                spell.probed_at = now
                self._probe()
        if spell is not None and not spell.told:  # not at once: the probe finds out more
            spell.told = True
            self._tell(spell)

    def _probe(self) -> None:
        if self._interrupts:
            signal.pthread_kill(self._loop_thread, INTERRUPT)  # type: ignore[arg-type]

    def _tell(self, spell: _Spell) -> None:
        """In a thread of its own: what blocks the loop may hold the lock of the log."""

        noting = None if spell.run is None else self._note(spell)

        def tell() -> None:
            if noting is not None:  # whoever reads of it finds it there
                noting.join(NOTED_SECONDS)
            self._log(str(spell.place or "a library"), spell.seconds)
            self._observer.loop_blocked(spell.seconds)

        threading.Thread(target=spell.context.run, args=(tell,), name="osmosis-watchdog-tells", daemon=True).start()

    def _note(self, spell: _Spell) -> threading.Thread:
        """In a thread of its own: a trace may be a file."""
        run = spell.noted_run = spell.run
        place, seconds = str(spell.place), spell.seconds - spell.seen_at_seconds

        def note() -> None:
            if run is not None:
                spell.block = run.note_block(place, seconds)

        thread = threading.Thread(target=note, name="osmosis-watchdog-notes", daemon=True)
        thread.start()
        return thread

    def _log(self, place: str, seconds: float) -> None:
        logger.warning(
            "Event loop blocked %.1f s at %s, and every rollout with it; use asyncio.to_thread.%s",
            seconds,
            place,
            "" if self._interrupts else " No limit ends it, as the loop is not in the main thread.",
        )

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise in the agent's code, if it is the agent's code and it has had its time; in the main thread."""
        now = time.monotonic()
        self._end_if_due(now)
        run = CURRENT_RUN.get()
        if self._lag.overdue_seconds < BLOCKED_SECONDS or run is None or _current_task() is None:
            return
        place = place_above(self._base, frame)
        if self._base is None or place is None or not place.is_authors:
            return
        if (spell := self._spell) is not None:
            spell.place, spell.run, spell.context = place, run, contextvars.copy_context()
        reason = run.overdue()
        first_at = self._signals.first_at
        if reason is None and first_at is not None and now - first_at >= self._limits.drain_seconds:
            reason = Stop.SHUTDOWN.value
        if reason is not None:
            raise run.interrupt(reason, str(place))


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None


def _forget_wakeup() -> None:
    # Only the main thread may; whoever forks becomes it.
    signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    # A child that an agent has forked shares the pipe: a signal that ends the child would drain its parent.
    os.register_at_fork(after_in_child=_forget_wakeup)
