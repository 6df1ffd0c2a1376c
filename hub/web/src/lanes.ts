// Draws one lane or dot for each edge of a round. It changes only what is new, and of much at once a part each frame,
// so that thousands of edges stay smooth; the list that is seen is also what a screen reader reads.

import { standing, type Lane, type Round } from "./board";
import { byName, plain, seconds, SIGN, size } from "./words";

const AT_ONCE = 150; // items in a frame

/** How large a dot is, in px, up to so many edges. */
const DOTS = [[120, 30], [400, 24], [1500, 18], [Infinity, 12]] as const;

interface Item {
  row: HTMLLIElement;
  name: HTMLElement;
  track: HTMLElement;
  fate: HTMLElement;
  /** What is drawn. */
  lane: Lane | null;
  drawn: string;
}

export class Lanes {
  readonly #list: HTMLUListElement;
  #items: Item[] = [];
  #names: string[] = [];
  #round: Round | null = null;
  #later = 0;

  constructor(list: HTMLUListElement) {
    this.#list = list;
  }

  /** Show a round on an axis of `axis` seconds. */
  show(round: Round, axis: number, lanes: boolean): void {
    if (round !== this.#round) {
      this.#round = round;
      this.#names = byName(Object.keys(round.lanes));
      for (const item of this.#items.splice(this.#names.length)) item.row.remove();
      const dot = DOTS.find(([most]) => this.#names.length <= most)![1];
      this.#list.style.setProperty("--dot", `${dot}px`);
      if (!this.#list.querySelector("[tabindex='0']")) this.#items[0]?.row.setAttribute("tabindex", "0");
    }
    cancelAnimationFrame(this.#later);
    const style = `${lanes ? axis : ""} ${round.listened ?? ""}`;
    let room = AT_ONCE;
    for (let at = 0; at < this.#names.length; at++) {
      const name = this.#names[at]!;
      const lane = round.lanes[name]!;
      const item = this.#items[at];
      if (item?.lane === lane && item.drawn === style && item.row.dataset.edge === name) continue;
      if (!room--) {
        this.#later = requestAnimationFrame(() => this.show(round, axis, lanes));
        return;
      }
      this.#draw(item ?? this.#add(at), name, lane, lanes ? track(lane, round, axis) : "");
      this.#items[at]!.lane = lane;
      this.#items[at]!.drawn = style;
    }
  }

  #add(at: number): Item {
    const row = document.createElement("li");
    const [name, track, fate] = ["b", "i", "span"].map((tag) => row.appendChild(document.createElement(tag)));
    const item = { row, name: name!, track: track!, fate: fate!, lane: null, drawn: "" };
    row.tabIndex = at ? -1 : 0; // one of them can be tabbed to, arrows reach the others
    this.#items[at] = item;
    this.#list.append(row);
    return item;
  }

  #draw({ row, name: label, track, fate }: Item, name: string, lane: Lane, background: string): void {
    const is = standing(lane);
    const [stage, since] = lane.stages.at(-1)!;
    if (row.dataset.edge !== name) {
      row.dataset.edge = name;
      label.textContent = plain(name);
    }
    row.className = `is-${is}`;
    row.dataset.stage = stage;
    row.dataset.fate = lane.fate ?? "";
    row.dataset.why = lane.why ?? "";
    track.style.background = background;
    const rests = stage === "done" || stage === "refused";
    fate.textContent = `${SIGN[is]} ${is === "done" || is === "accepted" ? seconds(since) : plain(lane.why || is)}`;
    fate.title = rests ? `${is} after ${seconds(since)}` : is;
    row.ariaLabel = `${label.textContent}: ${is}${lane.why ? ` (${plain(lane.why)})` : ""}`; // a dot shows no words
  }
}

/** A lane as a background: each stage in its colour up to where the next begins. */
function track(lane: Lane, round: Round, axis: number): string {
  const end = round.listened ?? Infinity;
  const stops = lane.stages.map(([stage, since], at) => {
    const until = Math.min(lane.stages[at + 1]?.[1] ?? Infinity, end);
    const place = (second: number) => `${Math.min(100, (100 * second) / axis).toFixed(2)}%`;
    return `var(--lane-${stage}, var(--${stage})) ${place(since)} ${place(until)}`;
  });
  if (end < axis) stops.push(`transparent ${((100 * end) / axis).toFixed(2)}%`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

/** All about one edge's way through a round, in words. */
export function story(name: string, round: Round): string {
  const lane = round.lanes[name]!;
  const parts = lane.stages.map(([stage, since], at) => {
    if (stage === "done" || stage === "refused" || stage === "away") return `${stage} at ${seconds(since)}`;
    const until = lane.stages[at + 1]?.[1] ?? round.listened;
    return until == null ? stage : `${stage} ${seconds(Math.max(0, until - since))}`;
  });
  if (lane.fate) parts.push(lane.why ? `${lane.fate} (${plain(lane.why)})` : lane.fate);
  parts.push(`↓ ${size(lane.down ?? 0)} ↑ ${size(lane.up ?? 0)}`);
  if (lane.loss != null) parts.push(`loss ${Number(lane.loss.toPrecision(3))}`);
  return `${plain(name)}: ${parts.join(" · ")}`;
}
