// How the page writes numbers, sizes and times: as `hub/views/words.py` and `shared/console.py` do, so that page and
// terminal say the same (tests/page/test_words.py compares them).

import type { Fate, Head, Round, Stage } from "./board";
import type { Order } from "./link";

/** Text from elsewhere, safe to look at: what is invisible or turns text around is shown as a placeholder. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\uFFFD");
}

export function size(bytes: number): string {
  let unit = "B";
  for (const larger of ["kB", "MB", "GB", "TB"]) {
    if (bytes < 1000) break;
    bytes /= 1000;
    unit = larger;
  }
  return `${bytes.toFixed(unit === "B" || bytes >= 10 ? 0 : 1)} ${unit}`;
}

export function seconds(value: number): string {
  if (!Number.isFinite(value)) return "?";
  const long = Math.abs(value);
  if (long >= 2 * 3600) return `${(value / 3600).toFixed(1)} h`;
  if (long >= 2 * 60) return `${(value / 60).toFixed(1)} min`;
  return `${value.toFixed(long < 1 ? 2 : long < 10 ? 1 : 0)} s`;
}

export function percent(share: number): string {
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "<0.1%";
  const fine = (value > 0 && value < 10) || (value > 99 && value < 100);
  return `${fine ? Math.min(value, 99.9).toFixed(1) : value.toFixed(0)}%`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

/** Accuracies in per cent, everything else with four digits. */
export function measured(metric: string, value: number | undefined): string {
  if (value === undefined) return "–";
  return metric.replace(/^personal_/, "").startsWith("acc") ? `${(100 * value).toFixed(1)}%` : `${Number(value.toPrecision(4))}`;
}

export function time(stamp: number): string {
  const date = new Date(stamp * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** Sorts `edge-9` before `edge-10`. */
export function byName(names: string[]): string[] {
  const keys = new Map(names.map((name) => [name, name.replace(/\d+/g, (digits) => digits.padStart(9, "0"))]));
  return names.sort((a, b) => (keys.get(a)! < keys.get(b)! ? -1 : 1));
}

/** What the run is doing, in a few words. */
export function doing(head: Head, round: Round | null): string {
  const open = round !== null && !round.outcome;
  switch (head.phase) {
    case "ended":
      return head.note ? `ended: ${plain(head.note)}` : "ended";
    case "stopping":
      return "stopping";
    case "opening":
      return "opening";
    case "waiting":
      if (head.here < head.needed) return `waiting for edges: ${head.here} of ${head.needed}`;
      return head.paused ? "paused" : "between rounds";
    case "paused":
      return "paused";
    case "measuring":
      return open ? "measuring" : head.paused ? "paused" : "between rounds";
    case "training":
      return head.paused ? "training, then a pause" : "training";
  }
}

/** What an order has done, for a hub that only says yes. */
export function done(order: Order): string {
  switch (order.action) {
    case "pause":
      return "no further round begins until you resume";
    case "resume":
      return "the run goes on";
    case "next":
      return "the round closes with what is in";
    case "deadline":
      return `the deadline is ${order.seconds} s from now on`;
    case "drop":
      return `${plain(order.edge)} is sent away`;
    case "stop":
      return "the hub stops";
  }
}

const OUTCOMES: Record<string, string> = {
  "everyone-answered": "everyone answered",
  "goal-reached": "enough answered",
  "deadline-passed": "the deadline passed",
  "cut-short": "cut short by the operator",
  "stopped": "closed by the stop",
  "too-few-answered": "too few answered: does not count",
  "interrupted": "interrupted",
};

export function outcome(word: string): string {
  return OUTCOMES[word] ?? plain(word);
}

/** What each state of an edge in a round looks like where there is no room for its name. */
export const SIGN: Record<Stage | Fate, string> = {
  waiting: "·", downloading: "↓", training: "◆", uploading: "↑", done: "✓", refused: "✕", away: "–",
  accepted: "✓", late: "!", left: "–", spared: "○", void: "∅",
};

const STEPS = [1, 2, 2.5, 5, 10];

/** A round number of about a `parts`-th of `span`, for the lines of a scale. */
export function step(span: number, parts: number): number {
  const power = 10 ** Math.floor(Math.log10(span / parts));
  return power * STEPS.find((times) => times * power >= span / parts)!;
}

/**
 * How many seconds a picture has room for: up to the deadline, or only what is needed if that is so much less that
 * everything would crowd at its edge.
 */
export function span(needed: number, deadline: number): number {
  if (deadline > 0 && deadline <= 4 * needed) return Math.max(needed, deadline) * 1.04;
  return Math.max(0.01, Math.ceil((needed * 1.2) / step(needed * 1.2, 8)) * step(needed * 1.2, 8));
}
