// What the page knows, and who draws it when: the one place where data from the wire and the person's wishes meet.

import { useLayoutEffect, useReducer, useRef } from "preact/hooks";
import { apply, EVERYTHING, Part, round, state, type Round, type State } from "./board";
import { Link, type Connection, type May, type Order } from "./link";
import { done, plain } from "./words";

interface Toast {
  id: number;
  good: boolean;
  text: string;
}

const REMEMBERED = 12; // rounds that were looked at
const TOASTS = 4;

export const page = {
  board: null as State | null,
  may: "watch" as May,
  connection: "connecting" as Connection,
  /** Why the connection is as it is. */
  reason: "",
  /** The round that is looked at; null for the newest. */
  viewing: null as number | null,
  past: new Map<number, Round>(),
  toasts: [] as Toast[],
};

// --- drawing -------------------------------------------------------------------------------------

interface Drawer {
  parts: number;
  draw(): void;
}

const drawers = new Set<Drawer>();
const due = new Set<Drawer>();
let asked = false;

/** Have everything drawn anew that shows one of `parts`: one drawer a frame, so that no frame takes long. */
export function touch(parts: number): void {
  for (const drawer of drawers) if (drawer.parts & parts) due.add(drawer);
  ask();
}

function ask(): void {
  if (asked || !due.size) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const [next] = due;
    if (!next) return;
    due.delete(next);
    next.draw();
    ask();
  });
}

/** Call `draw` whenever one of `parts` is new, as long as the element with the given ref is on screen. */
export function useDrawer<E extends Element>(parts: number, draw: () => void) {
  const ref = useRef<E>(null);
  const newest = useRef(draw);
  newest.current = draw;
  useLayoutEffect(() => {
    const drawer = { parts, draw: () => newest.current() };
    const leave = () => drawers.delete(drawer) && due.delete(drawer);
    const watcher = new IntersectionObserver(
      (entries) => {
        if (!entries.at(-1)!.isIntersecting) leave();
        else if (!drawers.has(drawer)) {
          drawers.add(drawer);
          due.add(drawer);
          ask();
        }
      },
      { rootMargin: "100px" },
    );
    drawers.add(drawer); // at once, or what comes next would be missed
    watcher.observe(ref.current!);
    return () => {
      watcher.disconnect();
      leave();
    };
  }, [parts]);
  return ref;
}

/** Render the calling component again whenever one of `parts` is new, as long as its element is on screen. */
export function useBoard<E extends Element>(parts: number) {
  const [, redraw] = useReducer((times: number) => times + 1, 0);
  return useDrawer<E>(parts, () => redraw(undefined));
}

// --- the hub's clock -----------------------------------------------------------------------------

const MINUTE = 60_000;
const OTHER = 600; // seconds: a difference as large as that means another hub, or a run that is played again
const ahead = { since: 0, now: -Infinity, before: -Infinity };

/**
 * Note what the hub's clock said. That was on its way for a while, so the clocks differ by at least what it seems: the
 * largest of the last minutes is nearest to the truth, and a clock that is set is forgotten soon.
 */
function heard(said: number): void {
  const here = Date.now();
  const seems = said - here / 1000;
  const other = ahead.now - seems > OTHER;
  if (here - ahead.since > MINUTE || other) {
    ahead.before = other ? -Infinity : ahead.now;
    ahead.now = -Infinity;
    ahead.since = here;
  }
  ahead.now = Math.max(ahead.now, seems);
}

/** Seconds since a round began; it stands still when the round is over, and when nobody knows. */
export function elapsed(round: Round): number {
  const board = page.board!;
  if (round.listened != null) return round.listened;
  const runs = !round.outcome && board.head.phase !== "ended" && page.connection !== "away";
  const now = runs ? Date.now() / 1000 + Math.max(ahead.now, ahead.before) : board.time;
  return Math.max(0, now - round.began);
}

/** Whether a round's clock goes on by itself. */
export function running(round: Round): boolean {
  const open = round.listened == null && !round.outcome;
  return open && page.board!.head.phase !== "ended" && page.connection !== "away" && page.connection !== "ended";
}

// --- the wire ------------------------------------------------------------------------------------

export const link = new Link({
  board(sent, may, now) {
    page.board = state(sent);
    page.may = may;
    page.past.clear();
    heard(now);
    look(page.viewing);
    touch(EVERYTHING);
  },
  changes(changes, now) {
    if (!page.board) return;
    const parts = apply(page.board, changes);
    heard(now);
    touch(parts);
  },
  past(sent) {
    page.past.set(sent.number, round(sent));
    if (page.past.size > REMEMBERED) page.past.delete(page.past.keys().next().value!);
    touch(Part.view);
  },
  model(file, number) {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(new Blob([file]));
    anchor.download = `model-r${number}.safetensors`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), MINUTE);
    say(true, `the model of round ${number} is downloaded`);
  },
  reply(good, reason, to) {
    if (!good && to?.type === "look" && to.round === page.viewing) look(null);
    say(good, reason || (to?.type === "order" ? done(to) : "done"));
  },
  connection(is, reason) {
    page.connection = is;
    page.reason = reason;
    touch(Part.link | Part.round);
  },
});

/** Have the hub do something. */
export function order(what: Order): void {
  link.ask({ type: "order", ...what });
}

let said = 0;

function say(good: boolean, text: string): void {
  const toast = { id: ++said, good, text: plain(text) };
  page.toasts = [...page.toasts, toast].slice(-TOASTS);
  touch(Part.link);
  setTimeout(() => {
    page.toasts = page.toasts.filter((shown) => shown !== toast);
    touch(Part.link);
  }, 6000);
}

// --- looking back --------------------------------------------------------------------------------

let wish = 0;

/** Look at a round that is over, or with null at the newest. */
export function look(number: number | null): void {
  clearTimeout(wish);
  page.viewing = number === page.board?.round?.number ? null : number;
  if (page.viewing !== null && !page.past.has(page.viewing)) {
    const round = page.viewing;
    wish = setTimeout(() => link.ask({ type: "look", round }), 80); // a slider passes many that nobody wants
  }
  touch(Part.view);
}

/** The round that is looked at: null if there is none yet, or it has not come. */
export function shownRound(): Round | null {
  return page.viewing === null ? page.board!.round : (page.past.get(page.viewing) ?? null);
}
